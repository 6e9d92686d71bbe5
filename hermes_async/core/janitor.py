"""Repair: whatever a crash left between two steps of a task's way is brought to its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from hermes_async.core.journal import Journal
from hermes_async.core.present import Presence
from hermes_async.domain.errors import ServiceError, StoreDamaged, UnreadableTask
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import Lost, Outcome, Overdue, decide, unread
from hermes_async.domain.task import Task, TaskStatus

logger = logging.getLogger("hermes.janitor")


@dataclass(frozen=True)
class Swept:
    """What one round of the janitor found."""

    lost: int = 0
    released: int = 0
    expired: int = 0


class Janitor:
    """Ends what ran out of lease or time, and lets to the gate what is due there.

    Every worker may have one: each repair is guarded by the record, so two at once do no harm.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def sweep(self, *, lost: bool = True) -> Swept:
        """Do one round; without `lost`, attempts whose lease ran out have a little longer."""
        lapsed = await self._journal.store.lapsed() if lost else []
        ended = [await self._mended(self._end_attempt, task_id) for task_id in lapsed]
        late = await self._journal.store.overdue()
        expired = [await self._mended(partial(self._end_task, reason), task_id) for task_id, reason in late]
        released = await self._journal.store.tend()
        return Swept(lost=sum(ended), released=released, expired=sum(expired))

    async def prune(self, retention: float) -> int:
        """Forget what ended more than `retention` seconds ago; return how many tasks that were."""
        return await self._journal.store.prune(retention)

    async def _mended(self, mend: Callable[[str], Awaitable[bool]], task_id: str) -> bool:
        """Mend one task; a record that is damaged, or cannot be read, must not keep the others waiting."""
        try:
            return await mend(task_id)
        except ServiceError:
            raise
        except StoreDamaged as exc:
            logger.error("task %s cannot be mended: %s", task_id, exc)
            return False
        except Exception:
            logger.exception("task %s cannot be mended", task_id)
            return False

    async def _end_task(self, reason: Reason, task_id: str) -> bool:
        found = await self._read(task_id, Overdue(reason))
        if found is None:
            return False
        task, event = found
        if reason is Reason.EXPIRED and task.status is not TaskStatus.QUEUED:
            return False  # it has begun meanwhile
        if not await self._journal.end(task, event):
            return False
        if task.status.is_begun:  # its worker should have, and may not be well
            await self._journal.queue.revoke([task_id], force=True)
        return True

    async def _end_attempt(self, task_id: str) -> bool:
        found = await self._read(task_id, Lost())
        if found is None:
            return False
        task, event = found
        with Presence(task):
            if not await self._journal.end(task, event, lapsed=True):
                return False
            logger.warning("task %s: attempt %d was lost with %s", task_id, task.attempt, task.worker)
        return True

    async def _read(self, task_id: str, outcome: Outcome) -> tuple[Task, AnyEvent] | None:
        """Return a task, and what follows from an outcome; one that cannot be read ends with any."""
        try:
            task = await self._journal.store.load(task_id)
        except UnreadableTask as exc:
            return exc.known, unread(exc)
        return None if task is None else (task, decide(task, outcome))
