"""A stage for each file of tests, and a parent in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from tests.acceptance.faults.stage import Stage
from tests.support.proxy import Mode


@pytest.fixture(scope="module")
def the_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")).open() as stage:
        yield stage


@pytest.fixture
def stage(the_stage: Stage) -> Iterator[Stage]:
    """One worker of each lane, alive again whatever the test before has done to them."""
    the_stage.have("async-1", "process-1")
    yield the_stage
    the_stage.proxy.set(Mode.PASS)


@pytest.fixture
async def hermes(stage: Stage) -> AsyncIterator[Hermes]:
    """A parent that talks to the stage through the proxy, as everybody does."""
    async with connect(stage.settings) as hermes:
        yield hermes
