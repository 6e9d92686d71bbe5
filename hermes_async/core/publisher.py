"""Handing to the broker what the pen cannot: tasks that the gate has let in, and those that are to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from hermes_async.core.ports import Queue, Store
from hermes_async.domain.errors import Closed, ServiceError
from hermes_async.domain.task import TaskStatus

logger = logging.getLogger("hermes.journal")


class Publisher:
    """Publishes in the background and in batches: a broker that is slow or down holds up nobody.

    What cannot be published, or is lost with this process, the janitor finds unconfirmed in the record; that
    a task is to stop, its worker reads when it renews the lease.
    """

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store = store
        self._queue = queue
        self._waiting: list[str] = []
        self._stopping: list[str] = []
        self._work: asyncio.Task[None] | None = None

    def publish(self, task_ids: Sequence[str]) -> None:
        """Publish these tasks soon."""
        self._waiting += task_ids
        self._begin()

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Tell the workers soon that these tasks are to stop."""
        self._stopping += task_ids
        self._begin()

    async def close(self) -> None:
        """Wait until everything is published, or has failed to be."""
        while self._work is not None and not self._work.done():
            await asyncio.wait({self._work})

    def _begin(self) -> None:
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run(), name="hermes-publisher")

    async def _run(self) -> None:
        while self._waiting or self._stopping:
            ids, self._waiting = self._waiting, []
            stopping, self._stopping = self._stopping, []
            try:
                if stopping:
                    await self._queue.revoke(stopping, force=False)
                await self._hand_over(ids)
            except (ServiceError, Closed) as exc:
                count = len(ids) + len(stopping)
                logger.warning(
                    "%d task%s for the broker: %s", count, " waits" if count == 1 else "s wait", exc
                )
            except Exception:  # what came meanwhile must not wait for the next that comes
                logger.exception("%d tasks wait for the janitor", len(ids) + len(stopping))

    async def _hand_over(self, ids: Sequence[str]) -> None:
        found = await self._store.load_all(ids)
        tasks = [task for task in found if task.status is TaskStatus.QUEUED]
        if tasks:
            await self._queue.publish_all(tasks)
            await self._store.published([task.id for task in tasks])
