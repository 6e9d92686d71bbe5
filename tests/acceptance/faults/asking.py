"""What scenarios ask of a task: how it ended, what its log says, how often its body began."""

from __future__ import annotations

import asyncio
from typing import Any

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.domain.task import Task, TaskStatus
from tests.acceptance.faults.stage import Stage
from tests.support.servers import wait_until_async


async def ended(handle: TaskHandle[Any], timeout: float = 30.0) -> Task:
    """The record of a task that has ended, exactly once."""
    async with asyncio.timeout(timeout):
        task = await handle.ended()
    types = await told(handle)
    assert sum(f"task.{type_}" in TERMINAL_TYPES for type_ in types) == 1, types
    return task


async def told(handle: TaskHandle[Any]) -> list[str]:
    """What the log says of an ended task."""
    return [event.type.removeprefix("task.") async for event in handle.events()]


async def running(*handles: TaskHandle[Any]) -> None:
    """Wait until all are running."""

    async def are() -> bool:
        tasks = await asyncio.gather(*(handle.task() for handle in handles))
        return all(task.status is TaskStatus.RUNNING for task in tasks)

    await wait_until_async(are, 30.0)


def beginnings(stage: Stage, task_id: str) -> list[int]:
    """The attempts whose body has begun, in order."""
    return [line.attempt for line in stage.ledger.read() if line.what == "began" and line.task == task_id]
