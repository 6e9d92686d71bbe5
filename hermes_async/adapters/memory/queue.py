"""A queue in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from hermes_async.adapters.memory.nudges import Nudges
from hermes_async.core.ports import Parcel
from hermes_async.domain.task import Task


class MemoryQueue:
    """A queue of task ids in this process; `get` gives the most urgent, then the oldest."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[str]] = {priority: deque() for priority in range(9, -1, -1)}
        self._nudges = Nudges()
        self._on_revoke: list[Callable[[str, bool], None]] = []

    def parcel(self, task: Task) -> Parcel | None:
        return None

    async def publish_all(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._waiting[task.birth.options.priority].append(task.id)
        self._nudges.tell()

    async def ping(self) -> None:
        return None

    async def get(self) -> str:
        """Wait for a task id."""
        while not (waiting := next(filter(None, self._lanes()), None)):
            await self._nudges.wait(60)
        return waiting.popleft()

    def on_revoke(self, stop: Callable[[str, bool], None]) -> None:
        """Call `stop(task_id, force)` when somebody wants a task stopped."""
        self._on_revoke.append(stop)

    async def revoke(self, task_ids: Sequence[str], *, force: bool) -> None:
        for stop in self._on_revoke:
            for task_id in task_ids:
                stop(task_id, force)

    async def close(self) -> None:
        return None

    def _lanes(self) -> Iterable[deque[str]]:
        return self._waiting.values()
