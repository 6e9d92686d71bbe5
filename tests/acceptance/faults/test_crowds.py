"""Many tasks at once: poison among neighbours, and storms of cancels from all sides."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.core.journal import patiently
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import MAX_LOSSES
from hermes_async.domain.task import TaskStatus
from tests.acceptance.faults.messages import is_settled, queue_of
from tests.acceptance.faults.stage import Stage, beginnings
from tests.support.asking import ended, running
from tests.support.servers import ROOT, wait_until_async

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_poison_does_not_take_its_neighbours_with_it(stage: Stage, hermes: Hermes) -> None:
    """A crash is blamed on all tasks of a worker; by the third each of them has a process of its own."""
    stage.have("async-1", "async-2", "process-1")
    session = hermes.session("poison")
    neighbours = [await session.dispatch("work", str(n), seconds=3.0) for n in range(20)]
    await running(*neighbours)
    poison = await session.dispatch("doomed", "poison", "start", attempts=99)
    supervisor = asyncio.create_task(_revive_for_ever(stage))
    task = await ended(poison, 60)
    assert (task.status, task.reason, task.attempt) == (TaskStatus.FAILED, Reason.WORKER_LOST, MAX_LOSSES)
    assert beginnings(stage, poison.id) == [1, 2, 3]
    outcomes = [await ended(handle, 60) for handle in neighbours]
    supervisor.cancel()
    assert [task.status for task in outcomes] == [TaskStatus.COMPLETED] * 20


async def _revive_for_ever(stage: Stage) -> None:
    while True:
        await asyncio.to_thread(stage.revive)
        await asyncio.sleep(0.1)


# -- cancels ---------------------------------------------------------------------------------------------
STORM = """
import asyncio, sys
from hermes_async.bootstrap import connect
from hermes_async.core.journal import patiently
from hermes_async.settings import Settings

async def main() -> None:
    async with connect(Settings.read()) as hermes:
        handles = [await hermes.handle(line.strip()) for line in open(sys.argv[1])]
        for _ in range(2):
            await asyncio.gather(*(patiently(handle.cancel, "a cancel") for handle in handles))

asyncio.run(main())
"""


async def test_a_storm_of_cancels_ends_each_task_once(stage: Stage, hermes: Hermes) -> None:
    stage.have("async-1", "async-2", "process-1")
    session = hermes.session("storm")
    handles = [await session.dispatch("work", str(n), seconds=60.0) for n in range(300)]
    innocent = await session.dispatch("work", "innocent", seconds=5.0)
    await running(*handles[:50])  # the others wait for a slot
    ids = stage.folder / "ids"
    ids.write_text("\n".join(handle.id for handle in handles))
    storms = [await asyncio.create_subprocess_exec(*_storm(ids), env=_environment(stage)) for _ in range(2)]
    # In a storm a server may take seconds to reply, which is told; it is asked again then.
    ends = (patiently(partial(ended, handle, 60), "an end") for handle in handles)
    for task in await asyncio.gather(*ends):
        assert (task.status, task.reason) == (TaskStatus.CANCELLED, None)
    assert [await storm.wait() for storm in storms] == [0, 0]
    assert (await ended(innocent)).status is TaskStatus.COMPLETED
    assert all(stage.processes[name].alive for name in ("async-1", "async-2"))
    await wait_until_async(lambda: is_settled(stage.server, queue_of("work")))
    assert await asyncio.wait_for(await session.dispatch("work", "after"), 15) == "after"


def _storm(ids: Path) -> list[str]:
    return [sys.executable, "-c", STORM, str(ids)]


def _environment(stage: Stage) -> dict[str, str]:
    return {**os.environ, **stage.env, "PYTHONPATH": str(ROOT)}
