"""What every store must do with what tasks consume, and that memory does it as Redis does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hermes_async.adapters.memory import store as memory
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.ports import Store
from hermes_async.domain.agent import RunLimits
from hermes_async.domain.budget import Budget, Spent
from hermes_async.domain.errors import TaskRejected
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import Overdue, decide
from hermes_async.domain.task import Task
from hermes_async.domain.usage import Usage
from tests.contract.conftest import closing
from tests.contract.steps import claimed, loaded
from tests.support.servers import wait_until_async
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio
ONE = Usage(requests=1)
CENT = Usage(input_tokens=10, output_tokens=5, cost_usd=0.01)


async def running(store: Store, parent: Task | None = None, **limits: Any) -> Task:
    return await claimed(store, await born(store, parent, **limits))


async def born(store: Store, parent: Task | None = None, **limits: Any) -> Task:
    """A new task with these limits, as the dispatcher makes it."""
    family = {"parent_task_id": parent.id, "parent_attempt": parent.attempt} if parent else {}
    task = make_task(options={"limits": RunLimits(**limits)}, **family)
    above = parent.birth.budgets if parent else ()
    own = (Budget(task_id=task.id, limits=RunLimits(**limits)),) if limits else ()
    birth = task.birth.model_copy(update={"budgets": above + own})
    return await store.create(task.model_copy(update={"birth": birth}), None, None)


async def spent(store: Store, task: Task, n: int, amount: Usage, *, asks: bool | None = None) -> Spent:
    asked = not amount.total_tokens and not amount.cost_usd if asks is None else asks
    found = await store.spend(task, n, amount, asks=asked)
    assert found is not None
    return found


async def test_what_is_spent_is_on_the_record(store: Store) -> None:
    task = await running(store)
    assert (await loaded(store, task)).usage is None
    first = await spent(store, task, 1, ONE)
    assert (first.granted, first.ours, first.usage, first.trees) == (True, True, ONE, [])
    await spent(store, task, 2, CENT)
    await spent(store, task, 3, Usage(tool_calls=2))
    all_of_it = Usage(requests=1, tool_calls=2, input_tokens=10, output_tokens=5, cost_usd=0.01)
    assert (await loaded(store, task)).usage == all_of_it
    assert (await loaded(store, task)).tree_usage is None


async def test_a_repeated_call_counts_once(store: Store) -> None:
    task = await running(store, requests=5)
    for _ in range(3):
        again = await spent(store, task, 1, CENT)
        assert (again.granted, again.usage, again.trees) == (True, CENT, [CENT])
    await spent(store, task, 2, ONE)
    assert (await spent(store, task, 1, CENT)).usage == ONE + CENT


async def test_dollars_are_summed_exactly(store: Store) -> None:
    task = await running(store, cost_usd=1.0)
    for n in range(1, 11):
        found = await spent(store, task, n, Usage(cost_usd=0.1))
    assert found.usage.cost_usd == 1.0 == found.trees[0].cost_usd
    assert not task.birth.budgets[0].exceeded(found.trees[0])
    assert found.usage == Usage(cost_usd=1.0)


async def test_an_attempt_that_is_over_has_spent_all_the_same(store: Store) -> None:
    old = await running(store, requests=5)
    await spent(store, old, 1, ONE)
    await store.append(make_event(old, "task.attempt_lost"))
    queued = await loaded(store, old)
    late = await spent(store, old, 2, CENT)
    assert (late.granted, late.ours, late.usage) == (True, False, ONE + CENT)
    new = await claimed(store, old)
    assert new.usage == ONE + CENT
    await spent(store, old, 3, CENT)
    asked = await spent(store, old, 4, ONE)
    assert (asked.granted, asked.ours) == (False, False)
    assert (await spent(store, new, 1, ONE)).usage == ONE + CENT + CENT + ONE
    now = await loaded(store, old)
    assert (now.status, now.attempt, now.tree_usage) == (new.status, 2, ONE + CENT + CENT + ONE)
    assert queued.attempt == 1


async def test_a_task_that_has_ended_is_not_changed_but_for_its_sums(store: Store) -> None:
    task = await running(store)
    await store.append(make_event(task, "task.failed"))
    before = await loaded(store, task)
    late = await spent(store, task, 1, CENT)
    assert (late.granted, late.ours) == (True, False)
    assert await loaded(store, task) == before.model_copy(update={"usage": CENT})


async def test_a_forgotten_task_stays_forgotten(store: Store) -> None:
    root = await running(store, requests=5)
    child = await running(store, root)
    await store.append(make_event(root, "task.failed"))
    await store.prune(0.0)
    assert await store.spend(root, 1, CENT, asks=False) is None
    found = await spent(store, child, 1, CENT)
    assert (found.granted, found.usage, found.trees) == (True, CENT, [Usage()])
    assert await store.load(root.id) is None


async def test_a_tree_is_held_to_all_its_budgets(store: Store) -> None:
    root = await running(store, requests=10)
    child = await running(store, root)
    grandchild = await running(store, child, tool_calls=3, cost_usd=0.5)
    await spent(store, root, 1, ONE)
    await spent(store, child, 1, ONE)
    found = await spent(store, grandchild, 1, CENT)
    assert found.trees == [ONE + ONE + CENT, CENT]
    assert found.usage == CENT
    assert [(await loaded(store, task)).tree_usage for task in (root, child, grandchild)] == [
        ONE + ONE + CENT,
        None,
        CENT,
    ]
    assert [(await loaded(store, task)).usage for task in (root, child, grandchild)] == [ONE, ONE, CENT]


@pytest.mark.parametrize(
    ("limits", "before", "asked", "granted"),
    [
        ({"requests": 2}, [ONE], ONE, True),
        ({"requests": 2}, [ONE, ONE], ONE, False),
        ({"requests": 2}, [ONE, ONE], Usage(tool_calls=9), True),
        ({"tool_calls": 0}, [], Usage(tool_calls=1), False),
        ({"tool_calls": 0}, [], ONE, True),
        ({"tool_calls": 3}, [Usage(tool_calls=2)], Usage(tool_calls=2), False),
        ({"total_tokens": 31}, [CENT, CENT], ONE, True),
        ({"total_tokens": 30}, [CENT, CENT], ONE, False),
        ({"cost_usd": 0.0200001}, [CENT, CENT], ONE, True),
        ({"cost_usd": 0.02}, [CENT, CENT], Usage(tool_calls=1), False),
        ({"cost_usd": 1e-12}, [], ONE, True),
    ],
)
async def test_what_is_asked_for_is_granted_or_not_counted(
    store: Store, limits: dict[str, Any], before: list[Usage], asked: Usage, granted: bool
) -> None:
    task = await running(store, **limits)
    for n, amount in enumerate(before, 1):
        assert (await spent(store, task, n, amount)).granted
    found = await spent(store, task, 10, asked)
    assert found.granted is granted
    assert found.usage == sum([asked] * granted, sum(before, Usage()))
    told = task.birth.budgets[0].refuses(sum(before, Usage()), asked)
    assert bool(told) is not granted
    assert (await loaded(store, task)).usage == (found.usage if found.usage != Usage() else None)


async def test_of_many_who_ask_at_once_as_many_are_granted_as_there_is_room(store: Store) -> None:
    root = await running(store, requests=20)
    children = [await running(store, root) for _ in range(30)]
    found = await asyncio.gather(*(spent(store, child, 1, ONE) for child in children))
    assert sum(each.granted for each in found) == 20
    assert (await loaded(store, root)).tree_usage == Usage(requests=20)


# -- children --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limits", "used", "told"),
    [
        ({"requests": 1}, ONE, "1 of 1 requests (limits.requests)"),
        ({"total_tokens": 15}, CENT, "15 of 15 tokens (limits.total_tokens)"),
        ({"cost_usd": 0.009}, CENT, "0.01 of 0.009 US dollars (limits.cost_usd)"),
    ],
)
async def test_no_child_is_accepted_where_nothing_is_left(
    store: Store, limits: dict[str, Any], used: Usage, told: str
) -> None:
    root = await running(store, **limits)
    branch = await running(store, root, requests=9)
    before = await born(store, branch)
    await spent(store, branch, 1, used)
    with pytest.raises(TaskRejected) as caught:
        await born(store, branch)
    assert caught.value.reason is Reason.BUDGET_EXCEEDED
    assert str(caught.value) == (
        f"echo was not accepted: the budget of task {root.id} is spent: {told}; finish with what you have"
    )
    assert {task.id for task in await store.tasks()} == {before.id, branch.id, root.id}
    assert (await store.cancel(root.id, force=False, cascade=True)).ended == [before.id]


async def test_a_child_is_accepted_while_one_request_is_left(store: Store) -> None:
    root = await running(store, requests=2, tool_calls=0, total_tokens=16, cost_usd=0.02)
    await spent(store, root, 1, ONE)
    await spent(store, root, 2, CENT)
    assert (await born(store, root, requests=1)).birth.budgets[1].limits == RunLimits(requests=1)


async def test_the_same_child_is_not_refused_again(store: Store) -> None:
    """Its first reply was lost."""
    root = await running(store, requests=1)
    child = await born(store, root)
    await spent(store, root, 1, ONE)
    assert (await store.create(child, None, None)).id == child.id


# -- seconds ---------------------------------------------------------------------------------------------
async def test_the_seconds_begin_with_the_first_attempt(store: Store) -> None:
    waiting, task = await born(store, seconds=7.0), await running(store, seconds=7.0)
    assert task.began_at == task.started_at is not None
    assert (await loaded(store, waiting)).began_at is None
    assert (await running(store, requests=1)).began_at is None
    await store.append(make_event(task, "task.retrying"))
    again = await claimed(store, task)
    assert (again.attempt, again.began_at) == (2, task.began_at)


async def test_a_task_whose_seconds_are_over_is_found_until_it_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "RUNNER_IS_FIRST", 0.0)
    task = await running(store, seconds=0.05)
    if isinstance(store, RedisStore):
        key = f"hermes:{{p{task.id[1:3]}}}:deadlines"
        await store._reads.read("ZINCRBY", key, -2000, f"budget_exceeded/{task.id}")
    await wait_until_async(store.overdue)
    assert await store.overdue() == [(task.id, Reason.BUDGET_EXCEEDED)]
    await store.append(make_event(task, "task.retrying"))
    assert await store.overdue() == [(task.id, Reason.BUDGET_EXCEEDED)]
    await store.append(decide(await loaded(store, task), Overdue(Reason.BUDGET_EXCEEDED)))
    assert await store.overdue() == []
    ended = await loaded(store, task)
    assert ended.error is not None
    told = f"the budget of task {task.id} is spent: 0.05 of 0.05 seconds (limits.seconds)"
    assert (ended.status, ended.reason, ended.error.message) == ("failed", "budget_exceeded", told)


async def test_what_was_counted_is_forgotten_with_its_tasks(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        root = await running(store, requests=5, seconds=60.0)
        child = await running(store, root, cost_usd=0.5, seconds=60.0)
        for n, task in enumerate((root, child, root, child), 1):
            await spent(store, task, n, CENT)
        for task in (child, root):
            await store.append(make_event(task, "task.failed"))
        await spent(store, child, 9, CENT)
        await store.prune(0.0)
        assert await store.spend(child, 10, CENT, asks=False) is None
        assert await store._reads.read("KEYS", "*") == ["hermes:metrics"]
