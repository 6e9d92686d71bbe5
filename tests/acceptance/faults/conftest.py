"""A stage for each test, and a Hermes of the test's own on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from tests.acceptance.faults.stage import Stage
from tests.support.servers import redis_binary


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    if redis_binary() is None:
        pytest.skip("no Redis server here")
    with Stage(tmp_path / "stage").open() as stage:
        yield stage


@pytest.fixture
async def hermes(stage: Stage) -> AsyncIterator[Hermes]:
    """A parent in this process, which talks to the stage through the proxy as all others do."""
    async with connect(stage.settings) as hermes:
        yield hermes
