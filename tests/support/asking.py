"""What tests ask of a task: whether it runs, how it ended, what its log says."""

from __future__ import annotations

import asyncio
from typing import Any

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.domain.task import Task, TaskStatus
from tests.support.servers import wait_until_async


async def running(*handles: TaskHandle[Any], attempt: int = 1, timeout: float = 30.0) -> None:
    """Wait until all are running, in this attempt or a later one."""

    async def are() -> bool:
        tasks = await asyncio.gather(*(handle.task() for handle in handles))
        return all(task.status is TaskStatus.RUNNING and task.attempt >= attempt for task in tasks)

    await wait_until_async(are, timeout)


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
