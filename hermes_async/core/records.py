"""Records that may not be readable, for those who need to know only where a task stands."""

from __future__ import annotations

from hermes_async.core.ports import Store
from hermes_async.domain.errors import UnreadableTask
from hermes_async.domain.task import Task


async def seen(store: Store, task_id: str) -> Task | None:
    """Return a task's record, or what can be said of one that cannot be read."""
    try:
        return await store.load(task_id)
    except UnreadableTask as exc:
        known: Task = exc.known
        return known
