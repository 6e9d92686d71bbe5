"""A RabbitMQ that is killed and comes back: tasks are accepted meanwhile, and none is lost or run twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_async.bootstrap import connect
from hermes_async.domain.task import TaskStatus
from tests.acceptance.faults.stage import Stage, beginnings
from tests.support.asking import ended, running
from tests.support.rabbitmq import RabbitServer, running_rabbitmq

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(240)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RabbitServer]:
    yield from running_rabbitmq(tmp_path / "rabbit")


async def test_a_rabbit_that_is_killed_and_comes_back(broker: RabbitServer, tmp_path: Path) -> None:
    with Stage(tmp_path / "stage", broker=broker.url).open() as stage:
        stage.start("async-1", "process-1")
        async with connect(stage.settings) as hermes:
            session = hermes.session("rabbit")
            before = [await session.dispatch("work", str(n), seconds=4.0) for n in range(5)]
            await running(*before)
            waiting = [await session.dispatch("sync_work", str(n), seconds=1.0) for n in range(5)]
            broker.kill()
            meanwhile = [await session.dispatch("work", str(n)) for n in range(3)]
            await asyncio.to_thread(broker.start)
            for handle in (*before, *waiting, *meanwhile):
                task = await ended(handle, 60)
                assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1), task
                assert beginnings(stage, handle.id) == [1]
        assert all(process.alive for process in stage.processes.values())
