"""The one pen: an event is written here, and what follows from it on the broker is done here, or nowhere."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from hermes_async.core.ports import Queue, Store
from hermes_async.domain.errors import ServiceError, StoreUnavailable
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Task, TaskStatus

logger = logging.getLogger("hermes.journal")

T = TypeVar("T")

#: Seconds between two tries of what must not fail.
INSIST_EVERY = 0.5


class Journal:
    """Writes tasks and events, and puts on the broker what the writing makes ready to run."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self.store = store
        self.queue = queue

    async def create(self, task: Task, idempotency_key: str | None = None) -> Task:
        """Write a new task and hand it to the broker; return the record that now stands.

        A broker that is down does not undo the record: the janitor publishes it when the broker is back.
        """
        parcel = self.queue.parcel(task)
        written = await self.store.create(task, parcel, idempotency_key)
        if parcel is None and written.id == task.id:
            await self._publish(task)
        return written

    async def append(self, event: AnyEvent, *, lapsed: bool = False) -> int:
        """Write an event; return its `seq`, or 0 when the record refused it."""
        return await self.store.append(event, lapsed=lapsed)

    async def insist(self, event: AnyEvent) -> int:
        """Write an event that must not be lost: wait for a store that is away."""
        return await patiently(lambda: self.store.append(event), f"{event.type} of {event.task_id}")

    async def release(self, task_id: str) -> None:
        """Put a task whose time has come on the broker."""
        task = await self.store.release(task_id)
        if task is not None and task.status is TaskStatus.QUEUED:
            await self._publish(task)

    async def _publish(self, task: Task) -> None:
        try:
            await self.queue.publish(task)
        except ServiceError as exc:
            logger.warning("task %s waits for the broker: %s", task.id, exc)
        else:
            await self.store.published(task)


async def patiently(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """Ask the store until it answers; it may be away for a while, which is told once."""
    level = logging.WARNING
    while True:
        try:
            return await ask()
        except StoreUnavailable as exc:
            logger.log(level, "%s has to wait: %s", what, exc)
            level = logging.DEBUG
            await anyio.sleep(INSIST_EVERY)
