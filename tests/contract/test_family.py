"""An attempt that ends in vain, by whomever: what it has dispatched is asked to stop in the same step."""

from __future__ import annotations

import pytest

from hermes_async.core.ports import Store
from hermes_async.domain.events import AttemptLostData
from hermes_async.domain.lifecycle import IN_VAIN
from hermes_async.domain.task import Lane, Task, TaskStatus
from tests.contract.conftest import MakeStore
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio
LEASE = 60.0
#: Those that a task writes of its own, and those that its death writes.
ENDS = [*sorted(IN_VAIN), "worker lost"]


class Family:
    """A parent that runs, with a child in every state, and a grandchild."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: list[str] = []
        store.on_cancelled(self.told.extend)
        self.parent = self.runs = self.waits = self.grandchild = self.done = make_task()

    async def meet(self) -> Family:
        await self.store.enlist("w1", Lane.ASYNC, 100, LEASE)
        self.parent = await self.claimed(await self.store.create(make_task(), None, None))
        self.done = await self.claimed(await self.child(self.parent))
        await self.store.append(make_event(self.done, "task.completed"), own=True)
        self.runs = await self.claimed(await self.child(self.parent))
        self.grandchild = await self.child(self.runs)
        self.waits = await self.child(self.parent)
        return self

    async def child(self, of: Task) -> Task:
        task = make_task(parent_task_id=of.id, parent_attempt=of.attempt)
        return await self.store.create(task, None, None)

    async def claimed(self, task: Task) -> Task:
        found = await self.store.claim(task.id, "w1", LEASE)
        assert found is not None
        return found

    async def end(self, how: str) -> int:
        if how == "worker lost":
            lost = AttemptLostData(cause="worker_lost", losses=1)
            return await self.store.append(make_event(self.parent, "task.attempt_lost", lost))
        return await self.store.append(make_event(self.parent, how), own=True)

    async def states(self) -> list[tuple[str, bool]]:
        """Status, and whether it is to stop: who runs, the grandchild, who waits, who is done."""
        tasks = [
            await self.store.load(task.id) for task in (self.runs, self.grandchild, self.waits, self.done)
        ]
        return [(task.status.value, task.cancel_requested) for task in tasks if task]

    async def log(self, after: int) -> list[str]:
        names = {
            self.parent.id: "parent",
            self.runs.id: "runs",
            self.waits.id: "waits",
            self.grandchild.id: "grandchild",
        }
        page = await self.store.events("chat", after, 100)
        return [f"{names[event.task_id or '']} {event.type.removeprefix('task.')}" for event in page.events]


@pytest.fixture
async def family(store: Store) -> Family:
    return await Family(store).meet()


STOPPED = [("running", True), ("cancelled", True), ("cancelled", True), ("completed", False)]
LEFT_ALONE = [("running", False), ("queued", False), ("queued", False), ("completed", False)]


@pytest.mark.parametrize("how", ENDS)
async def test_the_children_of_an_attempt_that_failed_are_asked_to_stop_before_its_end(
    family: Family, how: str
) -> None:
    before = await family.store.last_seq("chat")
    assert await family.end(how) == before + 6
    assert await family.states() == STOPPED
    assert family.told == [family.runs.id]
    assert await family.log(before) == [
        "grandchild cancel_requested",
        "grandchild cancelled",
        "waits cancel_requested",
        "waits cancelled",
        "runs cancel_requested",
        f"parent {'attempt_lost' if how == 'worker lost' else how.removeprefix('task.')}",
    ]
    # Who was not told hears of it with the lease.
    assert (await family.store.renew("w1", [family.runs.id], LEASE)).cancelled == [family.runs.id]


@pytest.mark.parametrize("how", ENDS)
async def test_an_end_that_comes_twice_or_is_refused_stops_nobody(family: Family, how: str) -> None:
    stale = family.parent.model_copy(update={"attempt": 7})
    family.parent, ours = stale, family.parent
    assert await family.end(how) == 0
    assert await family.states() == LEFT_ALONE
    family.parent = ours
    await family.end(how)
    after = await family.store.last_seq("chat")
    await family.end(how)
    assert await family.log(after) == []
    assert family.told == [family.runs.id]


@pytest.mark.parametrize("how", ["task.completed", "task.cancelled"])
async def test_who_completes_or_is_cancelled_without_cascade_leaves_its_children_alone(
    family: Family, how: str
) -> None:
    await family.end(how)
    assert await family.states() == LEFT_ALONE
    assert family.told == []


async def test_the_next_attempt_keeps_its_own_children(family: Family) -> None:
    await family.end("task.retrying")
    family.parent = await family.claimed(family.parent)
    own = await family.child(family.parent)
    await family.store.append(make_event(family.parent, "task.completed"), own=True)
    found = await family.store.load(own.id)
    assert found is not None
    assert found.status is TaskStatus.QUEUED


async def test_a_task_that_fails_before_it_begins_has_nobody_to_stop(make_store: MakeStore) -> None:
    store = make_store()
    told: list[str] = []
    store.on_cancelled(told.extend)
    task = await store.create(make_task(), None, None)
    assert await store.append(make_event(task, "task.failed")) == 2
    assert told == []
    await store.close()
