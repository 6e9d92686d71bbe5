"""What is asked in one tick ends as if it had been asked one by one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from hermes_async.core.ports import Store
from hermes_async.domain.agent import GateLimits
from hermes_async.domain.errors import TaskRejected
from hermes_async.domain.lifecycle import apply
from hermes_async.domain.task import Lane, Task, TaskStatus
from tests.contract.conftest import MakeStore, closing
from tests.contract.steps import LEASE
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio

SESSIONS = ("chat", "other", "third")
#: Tasks of each session, and how many of them may run at once; slots of the only worker.
EACH, LIMIT, SLOTS = 40, 5, 12


async def _born(store: Store) -> Sequence[Task]:
    options = {"concurrency_limit": LIMIT}
    tasks = [make_task(session, options=options) for session in SESSIONS for _ in range(EACH)]
    return await asyncio.gather(*(store.create(task, None, None) for task in tasks))


async def _begun(store: Store, tasks: Sequence[Task]) -> list[Task]:
    """Those that may run; nobody else may."""
    found = await asyncio.gather(*(store.claim(task.id, "w1", LEASE) for task in tasks))
    running = [task for task in found if task is not None]
    at_once = Counter(task.session_id for task in running)
    assert max(at_once.values()) <= LIMIT
    assert len(running) <= SLOTS + max(2, SLOTS // 4)
    return running


@pytest.mark.parametrize("seed", range(3))
async def test_a_crowd_that_does_all_in_the_same_ticks(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    await store.enlist("w1", Lane.ASYNC, SLOTS, LEASE)
    open_ = {task.id: task for task in await _born(store)}
    attempts = 0
    while open_:
        running = await _begun(store, [*open_.values()])
        attempts += len(running)
        ends = [make_event(task, chance.choice(["task.completed", "task.attempt_lost"])) for task in running]
        # Nobody's end is told twice, whoever tells it.
        told = await asyncio.gather(*(store.append(event) for event in [*ends, *ends]))
        assert all(told)
        assert told[: len(ends)] == told[len(ends) :]
        for event in ends:
            if event.type == "task.completed":
                del open_[event.task_id or ""]

    for session in SESSIONS:
        await _check_log(store, session)
    assert len(await store.tasks(status=TaskStatus.COMPLETED, limit=1_000)) == EACH * len(SESSIONS)
    for status in (TaskStatus.QUEUED, TaskStatus.RUNNING):
        assert not await store.tasks(status=status)
    assert not await store.lapsed()
    traffic, counted = await store.traffic(), await store.metrics()
    assert (sum(traffic.admitted.values()), traffic.waiting) == (0, 0)
    assert counted.waits["echo"].count == EACH * len(SESSIONS)
    assert counted.runs["echo"].count == counted.total("task.started") == attempts


async def _check_log(store: Store, session_id: str) -> None:
    """The numbers have no hole, and each record is the fold of its events."""
    events = (await store.events(session_id, 0, 10_000)).events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    tasks = await store.tasks(session_id=session_id, limit=1_000)
    assert len(tasks) == EACH
    for record in tasks:
        fold = record.model_copy(update={"status": TaskStatus.QUEUED, "attempt": 0})
        for event in events:
            if event.task_id == record.id and event.type != "task.queued":
                fold = apply(fold, event)
        assert (fold.status, fold.attempt) == (record.status, record.attempt)


async def test_a_limit_of_what_may_wait_counts_those_of_the_same_tick(make_store: MakeStore) -> None:
    async with closing(make_store(limits=GateLimits(max_queued=5))) as store:
        births = (store.create(make_task(), None, None) for _ in range(20))
        born = await asyncio.gather(*births, return_exceptions=True)
        assert sum(isinstance(each, TaskRejected) for each in born) == 15
        assert len(await store.tasks(limit=100)) == 5
