"""Who waits for a task that nobody can take is told so, once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hermes_async.core.ending import end
from hermes_async.core.ports import Store
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable
from hermes_async.domain.task import Lane, TaskStatus

logger = logging.getLogger("hermes.handle")

#: Seconds that a task is waited for before somebody looks whether there are workers, and between two looks.
LOOK_AFTER = 10.0


class Lookout:
    """Looks whether a lane has workers when one of its tasks has been waited for long, and does not run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: When each lane may be looked at again; one of which was told is not.
        self._due: dict[Lane, float] = {}
        self._looks: set[asyncio.Task[None]] = set()

    @contextmanager
    def over(self, task_id: str, lane: Lane) -> Iterator[None]:
        """Warn if the wait within takes long and no worker could take the task."""
        timer = asyncio.get_running_loop().call_later(LOOK_AFTER, self._begin, task_id, lane)
        try:
            yield
        finally:
            timer.cancel()

    async def finds_nobody(self, task_id: str) -> bool:
        """Tell whether a task waits while no worker of its lane is there; of a lane that is told once."""
        task = await self._store.load(task_id)
        if task is None or task.status is not TaskStatus.QUEUED:
            return False
        is_deserted = not (await self._store.traffic()).slots[task.lane]
        if is_deserted:
            self._due[task.lane] = math.inf
        return is_deserted

    async def close(self) -> None:
        """Stop looking."""
        await end(*self._looks)

    def _begin(self, task_id: str, lane: Lane) -> None:
        if (now := time.monotonic()) < self._due.get(lane, now):
            return
        self._due[lane] = now + LOOK_AFTER
        look = asyncio.create_task(self._look(task_id, lane), name=f"hermes-lookout {lane}")
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _look(self, task_id: str, lane: Lane) -> None:
        try:
            if await self.finds_nobody(task_id):
                logger.warning(
                    "task %s waits: no worker of the %s lane is there; start one with `hermes-async up` or "
                    "`hermes-async worker --lane %s`",
                    *(task_id, lane, lane),
                )
        except (StoreUnavailable, StoreDamaged):
            pass  # whoever waits hears of it
