"""From settings to a Hermes over servers that answer, or one clear sentence."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hermes_async import TaskContext, connect, subagent
from hermes_async.bootstrap import Servers, registry, servers
from hermes_async.domain.errors import ConfigError, StoreUnavailable
from hermes_async.settings import Settings
from tests.support.servers import free_port, needed, redis_binary
from tests.support.silent import silent_server

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("project_agents", None)


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


def settings(**environ: str) -> Settings:
    return Settings.read(environ=environ)


async def test_a_configured_redis_is_broker_and_state(redis_url: str) -> None:
    chosen = settings(HERMES_TASK_QUEUE=redis_url)
    with servers(chosen) as where:
        assert where == Servers(redis_url, redis_url)
        assert where.are_one
    async with connect(chosen, agents=[echo]) as hermes:
        handle = await hermes.session("chat").dispatch("echo", text="x")
        await hermes.runner("w1", 60.0).run(handle.id)
        assert await handle == "x"


async def test_broker_and_state_may_be_apart(redis_url: str) -> None:
    chosen = settings(HERMES_TASK_QUEUE="amqp://guest@127.0.0.1:1//", HERMES_STATE=redis_url)
    with servers(chosen) as where:
        assert (where.state, where.are_one) == (redis_url, False)
    async with connect(chosen) as hermes:
        assert await hermes.tasks() == []


async def test_a_second_close_does_nothing(redis_url: str) -> None:
    async with connect(settings(HERMES_TASK_QUEUE=redis_url), agents=[echo]) as hermes:
        handle = await hermes.session("chat").dispatch("echo", text="x")
        waiting = asyncio.ensure_future(handle.result())
        await hermes.runner("w1", 60.0).run(handle.id)
        assert await waiting == "x"
        await hermes.close()


async def test_nothing_is_left_behind(redis_url: str) -> None:
    before = set(threading.enumerate())
    async with connect(settings(HERMES_TASK_QUEUE=redis_url)) as hermes:
        await hermes.session().send_message("x")
    new = {thread.name for thread in threading.enumerate() if thread not in before}
    assert {name for name in new if "AnyIO" not in name} == set()


async def test_a_redis_that_is_not_there_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"does not work .* is it running and reachable") as told:
        async with connect(settings(HERMES_TASK_QUEUE=f"redis://me:secret@127.0.0.1:{free_port()}/0")):
            pass
    assert time.monotonic() - began < 3
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            "me:secret@127.0.0.1:{port}/0",
            r"lets nobody in \(.*[^.]\); are user and password in its URL right, .*\?$",
        ),
        ("127.0.0.1:{port}/99", r"refuses to work \(DB index is out of range\)$"),
    ],
)
async def test_a_redis_that_refuses_says_why(redis_url: str, place: str, said: str) -> None:
    url = f"redis://{place.format(port=urlsplit(redis_url).port)}"
    with pytest.raises(StoreUnavailable, match=said) as told:
        async with connect(settings(HERMES_TASK_QUEUE=url)) as hermes:
            await hermes.tasks()
    assert "secret" not in str(told.value)


async def test_a_redis_that_says_nothing_is_told_within_three_seconds() -> None:
    async with silent_server() as port:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            async with connect(settings(HERMES_TASK_QUEUE=f"redis://127.0.0.1:{port}/0")):
                pass
        assert time.monotonic() - began < 3


async def test_without_a_server_there_is_a_private_one() -> None:
    needed(redis_binary())
    async with connect(settings(), agents=[echo]) as hermes:
        handle = await hermes.session("chat").dispatch(echo, "x")
        assert (await handle.task()).id == handle.id
    assert (Path.cwd() / ".hermes").is_dir()


def test_the_agents_of_the_project_s_modules_are_known(tmp_path: Path) -> None:
    (tmp_path / "project_agents.py").write_text(
        "from hermes_async import subagent\n@subagent\ndef here(ctx): return 1\n"
    )
    known = registry(settings(HERMES_MODULES="project_agents"), [echo])
    assert list(known) == ["here", "echo"]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"HERMES_MODULES": "nowhere_at_all"}, "cannot import"),
        ({"HERMES_TASK_QUEUE": "x"}, "HERMES_TASK_QUEUE"),
    ],
)
async def test_a_wrong_configuration_is_told_before_any_server_is_asked(
    environ: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        async with connect(settings(**environ)):
            pass
