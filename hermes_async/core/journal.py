"""The one pen: an event is written here, and what follows from it on the broker is done here, or nowhere."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from hermes_async.core.outage import Outage
from hermes_async.core.ports import Cancelled, Parcel, Queue, Store
from hermes_async.core.publisher import Publisher
from hermes_async.core.tracing import UNTRACED, Tracing
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.lifecycle import IllegalTransition, apply, moves
from hermes_async.domain.task import Task

logger = logging.getLogger("hermes.journal")

T = TypeVar("T")

#: Seconds between two tries of what must not fail.
INSIST_EVERY = 0.5


class Journal:
    """Writes tasks and events; what the writing lets through the gate goes on the broker."""

    def __init__(self, store: Store, queue: Queue, tracing: Tracing = UNTRACED) -> None:
        self.store = store
        self.queue = queue
        self.tracing = tracing
        self._publisher = Publisher(store, queue)
        store.on_admitted(self._publisher.publish)
        store.on_cancelled(self._publisher.revoke)

    async def create(self, task: Task, idempotency_key: str | None = None) -> Task:
        """Write a new task; return the record that now stands.

        A broker that is down does not undo the record: the janitor publishes it when the broker is back.

        Raises:
            TaskRejected: a limit says no, or its parent task has ended.
        """
        return await self.store.create(task, self.queue.parcel(task), idempotency_key)

    async def create_all(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Write many new tasks; return their records.

        Raises:
            TaskRejected: a limit refuses one of them; those before it stand.
        """
        return await self.store.create_all(tasks, [self.queue.parcel(task) for task in tasks])

    async def append(self, event: AnyEvent, *, lapsed: bool = False, own: bool = False) -> int:
        """Write an event; return its `seq`, or 0 when the record refused it."""
        if not moves(event):
            return await self.store.append(event, lapsed=lapsed, own=own)
        moved, parcel = await self._moved(event)
        return await self.store.append(event, lapsed=lapsed, own=own, moved=moved, parcel=parcel)

    async def insist(self, event: AnyEvent, *, own: bool = False) -> int:
        """Write an event that must not be lost: wait for a store that is away."""
        return await patiently(lambda: self.append(event, own=own), f"{event.type} of {event.task_id}")

    async def end(self, task: Task, event: AnyEvent, *, lapsed: bool = False) -> bool:
        """Write how an attempt ended that its worker cannot tell of, or a wait; False: it was refused.

        Args:
            task: the record as it is before the event.
            event: what follows.
            lapsed: only if the lease of the attempt has run out.
        """
        is_written = bool(await self.append(event, lapsed=lapsed))
        if is_written:
            self.tracing.ended(task, event)
        return is_written

    async def cancel(self, task_id: str, *, force: bool, cascade: bool) -> Cancelled:
        """Ask a task, and with `cascade` what is below it, to stop; tell the workers that run them."""
        reached = await self.store.cancel(task_id, force=force, cascade=cascade)
        if reached.running:
            await self.queue.revoke(reached.running, force=force)
        return reached

    async def finish(self) -> None:
        """Wait for what is under way to the broker, which still needs the store."""
        await self._publisher.close()

    async def close(self) -> None:
        """Give back every connection."""
        await self.queue.close()
        await self.store.close()

    async def _moved(self, event: AnyEvent) -> tuple[Task | None, Parcel | None]:
        """Return the task as it goes to another agent or lane, and its new message."""
        task = await self.store.load(event.task_id or "")
        try:
            moved = apply(task, event) if task else None
        except IllegalTransition:  # the record will say so
            moved = None
        return moved, self.queue.parcel(moved) if moved else None


async def patiently(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """Ask the store until it answers; it may be away for a while, which is told once.

    What it cannot do, however often it is asked, is an error at once.
    """
    outage = None
    while True:
        try:
            return await ask()
        except StoreUnavailable as exc:
            outage = outage or Outage(logger, what)
            outage.began(exc)
            await anyio.sleep(INSIST_EVERY)
