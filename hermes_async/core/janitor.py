"""Repair: whatever a crash left between two steps of a task's way is brought to its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hermes_async.core.journal import Journal
from hermes_async.domain.errors import ServiceError
from hermes_async.domain.lifecycle import Lost, decide

logger = logging.getLogger("hermes.janitor")


@dataclass(frozen=True)
class Swept:
    """What one round of the janitor found."""

    lost: int = 0
    released: int = 0


class Janitor:
    """Ends attempts whose lease ran out, and puts on the broker what is due there.

    Every worker may have one: each repair is guarded by the record, so two at once do no harm.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def sweep(self, *, lost: bool = True) -> Swept:
        """Do one round; without `lost`, attempts whose lease ran out have a little longer."""
        lapsed = await self._journal.store.lapsed() if lost else []
        ended = [await self._mended(self._end_attempt, task_id) for task_id in lapsed]
        due = await self._journal.store.due()
        released = [await self._mended(self._release, task_id) for task_id in due]
        return Swept(lost=sum(ended), released=sum(released))

    async def prune(self, retention: float) -> int:
        """Forget what ended more than `retention` seconds ago; return how many tasks that were."""
        return await self._journal.store.prune(retention)

    async def _mended(self, mend: Callable[[str], Awaitable[bool]], task_id: str) -> bool:
        """Mend one task; a record that cannot be read must not keep the others waiting."""
        try:
            return await mend(task_id)
        except ServiceError:
            raise
        except Exception:
            logger.exception("task %s cannot be mended", task_id)
            return False

    async def _release(self, task_id: str) -> bool:
        await self._journal.release(task_id)
        return True

    async def _end_attempt(self, task_id: str) -> bool:
        task = await self._journal.store.load(task_id)
        if task is None:
            return False
        event = decide(task, Lost())
        if not await self._journal.append(event, lapsed=True):
            return False
        logger.warning("task %s: attempt %d was lost with %s", task_id, task.attempt, task.worker)
        return True
