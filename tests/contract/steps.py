"""What happens to a task in many tests of the store."""

from __future__ import annotations

from hermes_async.core.ports import Store
from hermes_async.domain.task import Task

#: Seconds.
LEASE = 60.0


async def claimed(store: Store, task: Task, lease: float = LEASE) -> Task:
    """Begin its next attempt."""
    found = await store.claim(task.id, "w1", lease)
    assert found is not None
    return found


async def loaded(store: Store, task: Task) -> Task:
    """Return its record."""
    found = await store.load(task.id)
    assert found is not None
    return found
