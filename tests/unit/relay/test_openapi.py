"""The description of the HTTP face, and what it does when somebody takes it at its word, or not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig
from hermes_async.relay.auth import mint
from hermes_async.relay.http.models import TaskRecord
from tests.support.agents import echo
from tests.unit.relay.conftest import SECRET, MakeStore, Station, new_task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hermes(make_store: MakeStore) -> AsyncIterator[Hermes]:
    hermes = Hermes(Registry(AgentsConfig(), [echo]), make_store(10_000), MemoryQueue())
    yield hermes
    await hermes.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("make_store", ["redis"], indirect=True)
async def test_schemathesis_finds_nothing(relay: Station, tmp_path: Path) -> None:
    """It asks for whatever the description allows and forbids, and holds each answer against it."""
    token = mint(SECRET, sub="tests", sessions="*", ttl=600)
    tool, config = Path(sys.executable).parent / "schemathesis", Path(__file__).with_name("schemathesis.toml")
    asked = ["run", f"{relay.url}/openapi.json", "--checks", "all", "-H", f"Authorization: Bearer {token}"]
    run = await asyncio.create_subprocess_exec(
        tool,
        "--config-file",
        config,
        *asked,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await run.communicate()
    assert run.returncode == 0, told.decode()


async def test_the_description_is_whole(hermes: Hermes, relay: Station) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{relay.url}/openapi.json") as answer:
        told = await answer.json()
    for path, operations in told["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["tags"]
            if path == "/healthz":
                continue
            assert operation["security"] == [{"HTTPBearer": []}]
            failures = {status for status in operation["responses"] if status >= "4"}
            assert failures >= {"400", "401", "403", "404", "408", "413", "415", "422", "500", "503"}
            for status in failures:
                assert operation["responses"][status]["content"].keys() == {"application/problem+json"}
    task = await new_task(hermes, "s")
    assert task.as_json().keys() == TaskRecord.model_fields.keys()
    async with aiohttp.ClientSession() as http:
        for page in ("/docs", "/redoc"):  # they would load scripts of strangers
            async with http.get(relay.url + page) as answer:
                assert answer.status == 404
