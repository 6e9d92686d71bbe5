"""The gate: what may run waits in order and fairly, no limit is exceeded, and no slot is ever lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from hermes_async import TaskContext, subagent
from hermes_async.adapters.memory import MemoryQueue
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.ports import PUBLISH_GRACE, RESEND_AFTER, UNKNOWN_SLOTS, Store, Traffic, places
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig, GateLimits
from hermes_async.domain.errors import TaskRejected
from hermes_async.domain.events import AnyEvent, RetryingData
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import apply, moves
from hermes_async.domain.task import Address, Lane, Task, TaskStatus
from tests.contract.conftest import MakeStore, closing
from tests.support.chance import run_by_chance
from tests.support.servers import wait_until_async
from tests.support.values import DATA, falling, make_event, make_task, suspect

pytestmark = pytest.mark.anyio
LEASE = 60.0
ONE = GateLimits(max_running=1)
PROCESS = Address(lane=Lane.PROCESS)
S = TaskStatus


class Gate:
    """A store, and what it has let in, in order."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.let_in: list[str] = []
        store.on_admitted(self.let_in.extend)

    async def born(self, session_id: str = "chat", *, limit: int | None = None, **how: Any) -> Task:
        """A new task; `limit` is that of its subagent, `agent_limit` that of its agent."""
        options = {"concurrency_limit": limit, **how.pop("options", {})}
        to = how.pop("to", Address()).model_copy(update={"concurrency_limit": how.pop("agent_limit", None)})
        return await self.store.create(make_task(session_id, options=options, to=to, **how), None, None)

    async def claimed(self, task: Task) -> Task:
        found = await self.store.claim(task.id, "w1", LEASE)
        assert found is not None
        return found

    async def running(self, *args: Any, **how: Any) -> Task:
        return await self.claimed(await self.born(*args, **how))

    async def child(self, parent: Task, **how: Any) -> Task:
        return await self.born(
            parent.session_id, parent_task_id=parent.id, parent_attempt=parent.attempt, **how
        )

    async def loaded(self, task: Task) -> Task:
        found = await self.store.load(task.id)
        assert found is not None
        return found

    async def append(self, event: AnyEvent) -> Task:
        """Write an event as the journal does, with what it moves; return the record."""
        task = await self.store.load(event.task_id or "")
        assert task is not None
        moved = apply(task, event) if moves(event) else None
        assert await self.store.append(event, moved=moved)
        return await self.loaded(task)

    async def end(self, task: Task, how: str = "completed") -> Task:
        return await self.append(make_event(await self.loaded(task), f"task.{how}"))

    async def drained(self) -> list[str]:
        """End whoever is let in, one after another, until nobody is; return the ids in that order."""
        for task_id in self.let_in:  # it grows meanwhile
            task = await self.store.claim(task_id, "w1", LEASE)
            if task is not None:
                await self.end(task)
        return self.let_in

    async def traffic(self) -> Traffic:
        return await self.store.traffic()

    async def held(self) -> int:
        return sum((await self.traffic()).admitted.values())

    async def waiting(self) -> int:
        return (await self.traffic()).waiting


async def gate_of(make_store: MakeStore, limits: GateLimits) -> AsyncIterator[Gate]:
    async with closing(make_store(limits=limits)) as store:
        yield Gate(store)


@pytest.fixture
async def gate(store: Store) -> Gate:
    """Without limits of the project."""
    return Gate(store)


@pytest.fixture
async def one(make_store: MakeStore, anyio_backend: str) -> AsyncIterator[Gate]:
    """One task at once."""
    async for gate in gate_of(make_store, ONE):
        yield gate


# -- order -----------------------------------------------------------------------------------------------
async def test_sessions_take_turns(one: Gate) -> None:
    plug = await one.running("plug")
    heavy = [await one.born("heavy") for _ in range(50)]
    light = [[await one.born(name) for _ in range(3)] for name in ("light", "lighter")]
    assert await one.waiting() == 56
    await one.end(plug)
    names = [(await one.store.load(task_id)).session_id for task_id in await one.drained()]  # type: ignore[union-attr]
    turns = [sorted(names[start : start + 3]) for start in (1, 4, 7)]
    assert turns == [["heavy", "light", "lighter"]] * 3
    assert names[10:] == ["heavy"] * 47
    for tasks in (heavy, *light):
        assert [id_ for id_ in one.let_in if id_ in {task.id for task in tasks}] == [t.id for t in tasks]


async def test_a_session_with_several_subagents_has_one_turn_all_the_same(one: Gate) -> None:
    plug = await one.running("plug")
    for agent in ("a", "b", "c"):
        for _ in range(4):
            await one.born("broad", agent=agent)
    for _ in range(4):
        await one.born("narrow", agent="a")
    await one.end(plug)
    names = [(await one.store.load(task_id)).session_id for task_id in await one.drained()][1:]  # type: ignore[union-attr]
    assert names[:8].count("narrow") >= 3
    assert "narrow" not in names[9:]


async def test_one_worker_leads_until_it_is_silent(gate: Gate) -> None:
    store = gate.store
    assert await store.lead("w1", LEASE)
    assert await store.lead("w1", LEASE, {"lost": 2, "released": 1, "expired": 0})
    assert not await store.lead("w2", LEASE)
    traffic = await gate.traffic()
    assert (traffic.leader, traffic.swept) == ("w1", {"lost": 2, "released": 1})
    assert await store.lead("w1", 0.05)
    await wait_until_async(lambda: store.lead("w2", LEASE))
    assert (await gate.traffic()).leader == "w2"
    assert not await store.lead("w1", LEASE)


async def test_who_comes_late_does_not_wait_for_turns_that_are_over(one: Gate) -> None:
    task = await one.running("plug")
    heavy = [await one.born("heavy") for _ in range(10)]
    for turn in range(3):
        await one.end(task)
        task = await one.claimed(heavy[turn])
    late = [await one.born("late") for _ in range(2)]
    await one.end(task)
    await one.drained()
    assert {task.id for task in late} < set(one.let_in[4:8])  # the two sessions take turns


async def test_the_urgent_are_before_those_whose_turn_it_is(one: Gate) -> None:
    plug = await one.running("plug")
    tasks = {
        (session, priority): await one.born(session, options={"priority": priority})
        for session in ("a", "b")
        for priority in (0, 5, 9)
    }
    await one.end(plug)
    order = (await one.drained())[1:]
    by_id = {task.id: key for key, task in tasks.items()}
    assert [by_id[id_][1] for id_ in order] == [9, 9, 5, 5, 0, 0]


async def test_within_a_line_the_oldest_is_first(one: Gate) -> None:
    plug = await one.running("plug")
    tasks = [await one.born() for _ in range(20)]
    await one.store.cancel(tasks[7].id, force=False, cascade=True)
    await one.end(plug)
    assert (await one.drained())[1:] == [task.id for task in tasks if task is not tasks[7]]


async def test_a_retry_keeps_its_age(one: Gate) -> None:
    first = await one.running()
    second = await one.born()
    await one.end(first, "attempt_lost")  # it gives its place to who waits
    third = await one.born()
    await one.end(await one.claimed(second))
    assert await one.drained() == [first.id, second.id, first.id, third.id]


async def test_both_lanes_share_the_limit_of_the_project_in_the_order_of_the_lines(one: Gate) -> None:
    plug = await one.running("plug")
    tasks = [await one.born(name, to=to) for name, to in (("a", PROCESS), ("b", Address()), ("c", PROCESS))]
    assert await one.held() == 1
    await one.end(plug)
    assert await one.held() == 1
    order = (await one.drained())[1:]
    assert sorted(order) == sorted(task.id for task in tasks)


# -- limits of subagents and agents ----------------------------------------------------------------------
async def test_a_subagent_s_limit_is_that_of_a_session(gate: Gate) -> None:
    mine = [await gate.born("a", limit=2) for _ in range(4)]
    other = [await gate.born("b", limit=2) for _ in range(3)]
    assert gate.let_in == [task.id for task in (*mine[:2], *other[:2])]
    await gate.end(await gate.claimed(mine[0]))
    assert gate.let_in[4:] == [mine[2].id]
    assert await gate.waiting() == 2


async def test_a_line_at_its_limit_holds_up_no_other_line_of_its_session(make_store: MakeStore) -> None:
    async for gate in gate_of(make_store, GateLimits(max_running=3)):
        plugs = [await gate.running("plug"), await gate.running("plug")]
        slow = await gate.running("chat", agent="slow", limit=1)
        blocked = [await gate.born("chat", agent="slow", limit=1, options={"priority": 9}) for _ in range(2)]
        fast = await gate.born("chat", agent="fast")
        await gate.end(plugs[0])
        assert gate.let_in[-1] == fast.id
        await gate.end(slow)
        assert gate.let_in[-1] == blocked[0].id


async def test_other_subagents_and_agents_go_on_while_one_is_at_its_limit(gate: Gate) -> None:
    await gate.running(agent="slow", limit=1)
    waiting = [await gate.born(agent="slow", limit=1) for _ in range(2)]
    assert (await gate.born(agent="fast")).id in gate.let_in
    busy = await gate.running("b", agent="rare", agent_limit=1)
    parked = await gate.born("c", agent="rare", agent_limit=1)
    assert (await gate.born("c", agent="common", agent_limit=1)).id in gate.let_in
    assert await gate.waiting() == 3
    await gate.end(busy)
    assert gate.let_in[-1] == parked.id
    assert not {task.id for task in waiting} & set(gate.let_in)


async def test_an_agent_s_limit_holds_over_sessions_and_parents(gate: Gate) -> None:
    tasks = [await gate.born(f"s{n}", agent_limit=2) for n in range(6)]
    assert gate.let_in == [task.id for task in tasks[:2]]
    assert sorted(await gate.drained()) == sorted(task.id for task in tasks)
    assert gate.let_in == [task.id for task in tasks]


async def test_who_waits_for_a_limit_takes_no_place(gate: Gate) -> None:
    await gate.store.enlist("w1", Lane.ASYNC, 4, LEASE)
    for _ in range(50):
        await gate.born(limit=1)
    others = [await gate.born(agent="other") for _ in range(5)]
    assert [task.id in gate.let_in for task in others] == [True] * 5


async def test_a_slot_of_an_agent_is_offered_to_the_next_when_the_first_is_cancelled(
    make_store: MakeStore,
) -> None:
    async for gate in gate_of(make_store, GateLimits(max_running=3)):
        rare, common, last = [await gate.running(name, agent=name, agent_limit=1) for name in "rcl"]
        await gate.end(last)
        first, second = [await gate.born(name, agent="r", agent_limit=1) for name in "ab"]  # both are parked
        busy = await gate.running("busy")
        urgent = await gate.born("urgent", options={"priority": 9})
        await gate.end(rare)  # its place goes to the urgent one, so the first cannot take its slot yet
        assert gate.let_in[-1] == urgent.id
        await gate.store.cancel(first.id, force=False, cascade=True)
        for task in (common, busy, await gate.claimed(urgent)):
            await gate.end(task)
        assert gate.let_in[-1] == second.id


async def test_a_slot_of_an_agent_is_not_offered_to_a_line_whose_head_has_another(gate: Gate) -> None:
    rare = await gate.running("a", agent="rare", agent_limit=1)
    parked = await gate.born("b", agent="rare", agent_limit=1)
    second = await gate.born("c", agent="rare", agent_limit=1)
    spare = await gate.running("d", agent="spare", to=PROCESS, agent_limit=1)
    moving = await gate.running(
        "b", agent="rare", options={"fallback": "spare", "priority": 9}, fallback=SPARE_HERE
    )
    await gate.append(falling(moving))  # now the head of the parked line, and no less in want of a slot
    await gate.store.cancel(parked.id, force=False, cascade=True)
    await gate.end(rare)
    assert gate.let_in[-1] == second.id
    await gate.end(spare)
    assert gate.let_in[-1] == moving.id


async def test_a_slot_of_an_agent_is_offered_to_the_next_when_the_first_gets_another_head(
    make_store: MakeStore,
) -> None:
    async for gate in gate_of(make_store, GateLimits(max_running=4)):
        how: dict[str, Any] = {"options": {"fallback": "spare"}, "fallback": SPARE_HERE}
        spare = await gate.running("s", agent="spare", agent_limit=1)
        plug = await gate.running("plug")
        rare = await gate.running("a", agent="rare", agent_limit=1, **how)
        first = await gate.born("a", agent="rare", agent_limit=1)
        second = await gate.born("b", agent="rare", agent_limit=1)  # both are parked
        await gate.running("busy")
        urgent = await gate.born("urgent", options={"priority": 9})
        await gate.append(falling(rare))  # its place goes to the urgent one, and it goes before the first
        assert gate.let_in[-1] == urgent.id
        await gate.end(plug)
        assert gate.let_in[-1] == second.id
        await gate.end(spare)
        assert gate.let_in[-1] == rare.id
        assert first.id not in gate.let_in


async def test_the_next_line_takes_the_slot_when_the_first_is_at_its_own_limit(gate: Gate) -> None:
    """A session's limit holds over both lanes, so a line may reach it while it waits for its agent."""
    rare = await gate.running("a", agent="rare", agent_limit=1)
    first = await gate.born("b", agent="rare", limit=1, agent_limit=1)
    second = await gate.born("c", agent="rare", agent_limit=1)
    own = await gate.running("b", agent="rare", limit=1, to=PROCESS)  # its session's only slot
    await gate.end(rare)
    assert gate.let_in[-1] == second.id
    await gate.end(await gate.claimed(second))
    await gate.end(own)
    assert gate.let_in[-1] == first.id


# -- slots are given back --------------------------------------------------------------------------------
ENDS = ["completed", "failed", "cancelled", "retrying", "attempt_lost", "aside", "cancel before it began"]


@pytest.mark.parametrize("end", ENDS)
async def test_whatever_ends_or_waits_gives_back_what_it_holds(make_store: MakeStore, end: str) -> None:
    async for gate in gate_of(make_store, ONE):
        task = await gate.born("a", limit=1, agent_limit=1)
        following = [await gate.born("a", limit=1, agent_limit=1), await gate.born("b", agent_limit=1)]
        if end == "cancel before it began":
            await gate.store.cancel(task.id, force=False, cascade=True)
        elif end == "aside":
            await gate.store.step_aside(await gate.claimed(task))
        elif end == "retrying":
            data = RetryingData(error=ErrorInfo(type="E"), delay=3600.0, failures=1)
            await gate.append(make_event(await gate.claimed(task), "task.retrying", data))
        else:
            await gate.end(await gate.claimed(task), end)
        assert len(gate.let_in) == 2
        assert gate.let_in[1] in {each.id for each in following}
        assert await gate.held() == 1


async def test_an_end_that_is_refused_frees_nothing(one: Gate) -> None:
    task = await one.running()
    await one.born()
    older = task.model_copy(update={"attempt": 0})
    assert await one.store.append(make_event(older, "task.completed")) == 0
    await one.store.step_aside(older)
    assert (await one.held(), await one.waiting()) == (1, 1)
    ended = await one.end(task)
    assert await one.store.append(make_event(ended, "task.completed"))  # the same once more
    assert await one.held() == 1


async def test_a_second_message_of_a_task_that_waits_again_is_not_claimed(one: Gate) -> None:
    task = await one.running()
    other = await one.born("other")
    await one.end(task, "attempt_lost")
    assert await one.store.claim(task.id, "w2", LEASE) is None
    await one.end(await one.claimed(other))
    assert (await one.claimed(task)).attempt == 2


# -- aside and back --------------------------------------------------------------------------------------
async def test_who_comes_back_goes_first(one: Gate) -> None:
    parent = await one.running(limit=1, agent_limit=1)
    await one.store.step_aside(parent)
    child = await one.claimed(await one.child(parent, options={"priority": 9}))
    urgent = await one.born("other", options={"priority": 9})
    assert await one.store.step_back(parent) is False
    assert await one.store.step_back(parent) is False
    async with one.store.watch(parent.session_id) as hint:
        nudge = asyncio.create_task(hint.wait(10.0))
        await asyncio.sleep(0.05)
        await one.end(child)
        await asyncio.wait_for(nudge, 5.0)
    assert await one.store.step_back(parent) is True
    assert await one.store.step_back(parent) is True
    assert one.let_in == [parent.id, child.id]  # there is no second message for who runs already
    await one.end(parent)
    assert one.let_in[-1] == urgent.id


async def test_who_steps_aside_again_leaves_the_line(one: Gate) -> None:
    parent = await one.running()
    await one.store.step_aside(parent)
    child = await one.claimed(await one.child(parent))
    assert await one.store.step_back(parent) is False
    assert await one.waiting() == 1
    await one.store.step_aside(parent)
    assert await one.waiting() == 0
    await one.end(child)
    assert await one.held() == 0
    assert await one.store.step_back(parent) is True


@pytest.mark.parametrize("end", ["completed", "attempt_lost"])
@pytest.mark.parametrize("where", ["aside", "in line"])
async def test_whose_attempt_is_over_does_not_come_back(one: Gate, end: str, where: str) -> None:
    task = await one.running()
    await one.store.step_aside(task)
    plug = await one.running("plug")
    if where == "in line":
        assert await one.store.step_back(task) is False
    await one.end(task, end)
    assert await one.store.step_back(task) is None
    assert await one.waiting() == (1 if end == "attempt_lost" else 0)
    await one.end(plug)
    await one.drained()
    assert (await one.held(), await one.waiting()) == (0, 0)
    assert (await one.loaded(task)).status is S.COMPLETED


async def test_nesting_of_any_depth_ends_with_one_place(one: Gate) -> None:
    chain = [await one.running(limit=1, agent_limit=1)]
    for _ in range(20):
        await one.store.step_aside(chain[-1])
        chain.append(await one.claimed(await one.child(chain[-1], limit=1, agent_limit=1)))
    while chain:
        await one.end(chain.pop())
        if chain:
            assert await one.store.step_back(chain[-1]) is True
    assert (await one.held(), await one.waiting()) == (0, 0)


# -- the workers' slots ----------------------------------------------------------------------------------
async def test_without_a_worker_a_few_may_be_on_the_broker(gate: Gate) -> None:
    for _ in range(UNKNOWN_SLOTS + 10):
        await gate.born()
    assert len(gate.let_in) == UNKNOWN_SLOTS
    assert await gate.waiting() == 10


async def test_more_workers_let_more_in_and_fewer_let_nobody_in(gate: Gate) -> None:
    await gate.store.enlist("w1", Lane.ASYNC, 4, LEASE)
    tasks = [await gate.born() for _ in range(40)]
    assert len(gate.let_in) == places(4)
    await gate.store.enlist("w2", Lane.ASYNC, 12, LEASE)
    assert len(gate.let_in) == places(16)
    await gate.store.enlist("w2", Lane.ASYNC, 0, 0.0)
    traffic = await gate.traffic()
    assert (traffic.slots["async"], traffic.admitted["async"]) == (4, places(16))
    for task in tasks[: places(16) - places(4)]:
        await gate.end(await gate.claimed(task))
    assert len(gate.let_in) == places(16)
    await gate.end(await gate.claimed(tasks[places(16) - places(4)]))
    assert len(gate.let_in) == places(16) + 1


async def test_a_lane_that_is_full_holds_up_no_other_lane(gate: Gate) -> None:
    await gate.store.enlist("w1", Lane.PROCESS, 1, LEASE)
    for _ in range(10):
        await gate.born(to=PROCESS)
    assert len(gate.let_in) == places(1)
    assert (await gate.born()).id in gate.let_in


async def test_it_is_seen_which_agents_the_living_workers_of_a_lane_know(make_store: MakeStore) -> None:
    async with closing(make_store()) as store:
        await store.enlist("old", Lane.ASYNC, 4, LEASE, ["brew", "grind"])
        await store.enlist("new", Lane.ASYNC, 4, LEASE, ["brew", "pour"])
        await store.enlist("other lane", Lane.PROCESS, 4, LEASE, ["count"])
        agents = (await store.traffic()).agents
        assert (set(agents["async"]), set(agents["process"])) == ({"brew", "grind", "pour"}, {"count"})
        await store.enlist("old", Lane.ASYNC, 0, 0.0)
        assert set((await store.traffic()).agents["async"]) == {"brew", "pour"}
        for worker, lane in (("new", Lane.ASYNC), ("other lane", Lane.PROCESS)):
            await store.enlist(worker, lane, 0, 0.0)
        if isinstance(store, RedisStore):
            assert not [key for key in await gate_keys(store) if key.endswith(":agents")]


async def test_a_worker_that_is_silent_counts_no_more(make_store: MakeStore) -> None:
    async with closing(make_store()) as store:
        await store.enlist("silent", Lane.ASYNC, 100, 0.05)
        assert (await store.traffic()).slots["async"] == 100

        async def left() -> bool:  # nobody else has to come for that
            return (await store.traffic()).slots["async"] == 0

        await wait_until_async(left)
        await store.enlist("alive", Lane.ASYNC, 3, LEASE)
        assert (await store.traffic()).slots["async"] == 3
        await store.enlist("alive", Lane.ASYNC, 0, 0.0)
        assert (await store.traffic()).slots["async"] == 0
        if isinstance(store, RedisStore):
            assert await gate_keys(store) == []


# -- what is refused -------------------------------------------------------------------------------------
async def test_too_many_that_wait_are_refused_in_a_sentence(make_store: MakeStore) -> None:
    async for gate in gate_of(make_store, GateLimits(max_running=1, max_queued=3)):
        running = await gate.running("a")
        tasks = [await gate.born("a") for _ in range(3)]
        with pytest.raises(TaskRejected, match=r"3 tasks wait already, .* ask again when some") as refused:
            await gate.born("b")
        assert refused.value.reason is Reason.LIMIT_EXCEEDED
        assert len(await gate.store.tasks()) == 4
        await gate.end(running)  # the next one is on the broker, and still waits for its start
        with pytest.raises(TaskRejected):
            await gate.born("b")
        await gate.claimed(tasks[0])
        assert await gate.born("b")


async def test_who_is_refused_leaves_no_key_and_no_place(make_store: MakeStore) -> None:
    async for gate in gate_of(make_store, GateLimits(max_queued=1)):
        await gate.store.create(make_task(), None, "k1")
        with pytest.raises(TaskRejected):
            await gate.store.create(make_task(), None, "k2")
        await gate.drained()
        task = make_task()
        assert (await gate.store.create(task, None, "k2")).id == task.id


@pytest.mark.parametrize("state", ["queued", "ended", "to be cancelled", "older attempt", "gone"])
async def test_a_child_needs_a_parent_that_runs(gate: Gate, state: str) -> None:
    parent = await gate.born()
    if state != "queued":
        parent = await gate.claimed(parent)
    seen = parent
    if state == "ended":
        await gate.end(parent)
    elif state == "to be cancelled":
        await gate.store.cancel(parent.id, force=False, cascade=True)
    elif state == "older attempt":
        await gate.end(parent, "attempt_lost")
        await gate.claimed(parent)
    elif state == "gone":
        seen = make_task(attempt=1)
    why = "to be cancelled" if state == "to be cancelled" else "not running"
    with pytest.raises(TaskRejected, match=f"parent task {seen.id} is {why}"):
        await gate.child(seen)
    assert len(await gate.store.tasks()) == 1


# -- cancelling a tree -----------------------------------------------------------------------------------
class Tree:
    """Three levels, with members in every state: `w` waits in line, `r` runs, `a` is aside, `e` has ended."""

    def __init__(self, **tasks: Task) -> None:
        self.tasks = tasks

    def ids(self, *names: str) -> list[str]:
        return sorted(self.tasks[name].id for name in names)


async def grown(gate: Gate) -> Tree:
    top = await gate.running()
    await gate.store.step_aside(top)
    ended = await gate.end(await gate.claimed(await gate.child(top)))
    below = await gate.claimed(await gate.child(top))
    runs = await gate.claimed(await gate.child(below, limit=1))
    waits = await gate.child(below, limit=1)
    sent = await gate.child(below, agent="other")
    retries = await gate.claimed(await gate.child(below, agent="third"))
    data = RetryingData(error=ErrorInfo(type="E"), delay=3600.0, failures=1)
    await gate.append(make_event(retries, "task.retrying", data))
    await gate.store.step_aside(below)
    return Tree(top=top, ended=ended, below=below, runs=runs, waits=waits, sent=sent, retries=retries)


async def test_a_cancel_reaches_the_whole_tree_once(gate: Gate) -> None:
    tree = await grown(gate)
    stranger = await gate.running("chat", agent="stranger")
    reached = await gate.store.cancel(tree.tasks["top"].id, force=True, cascade=True)
    assert sorted(reached.running) == tree.ids("top", "below", "runs")
    assert sorted(reached.ended) == tree.ids("waits", "sent", "retries")
    again = await gate.store.cancel(tree.tasks["top"].id, force=True, cascade=True)
    assert (sorted(again.running), again.ended) == (sorted(reached.running), [])
    for name in ("runs", "below", "top"):
        assert (await gate.loaded(tree.tasks[name])).cancel_requested
        await gate.end(tree.tasks[name], "cancelled")
    nothing = await gate.store.cancel(tree.tasks["top"].id, force=True, cascade=True)
    assert (nothing.running, nothing.ended) == ([], [])
    log = (await gate.store.events("chat", 0, 1000)).events
    told = Counter(event.task_id for event in log if event.type == "task.cancelled")
    assert set(told.values()) == {1}
    assert set(told) == set(tree.ids("top", "below", "runs", "waits", "sent", "retries"))
    asked = Counter(event.task_id for event in log if event.type == "task.cancel_requested")
    assert asked == told
    assert (await gate.loaded(stranger)).status is S.RUNNING
    assert (await gate.loaded(tree.tasks["ended"])).status is S.COMPLETED
    await gate.end(stranger)
    assert (await gate.held(), await gate.waiting()) == (0, 0)


async def test_leaves_are_cancelled_before_those_that_wait_for_them(gate: Gate) -> None:
    tree = await grown(gate)
    await gate.store.cancel(tree.tasks["top"].id, force=False, cascade=True)
    log = (await gate.store.events("chat", 0, 1000)).events
    order = [event.task_id for event in log if event.type == "task.cancel_requested"]
    assert order.index(tree.tasks["waits"].id) < order.index(tree.tasks["below"].id)
    assert order[-1] == tree.tasks["top"].id


async def test_without_cascade_a_cancel_leaves_the_children_alone(gate: Gate) -> None:
    tree = await grown(gate)
    reached = await gate.store.cancel(tree.tasks["below"].id, force=False, cascade=False)
    assert (reached.running, reached.ended) == ([tree.tasks["below"].id], [])
    assert not (await gate.loaded(tree.tasks["runs"])).cancel_requested
    assert (await gate.loaded(tree.tasks["waits"])).status is S.QUEUED


async def test_a_cancel_passes_a_child_that_was_forgotten(gate: Gate) -> None:
    parent = await gate.running()
    await gate.end(await gate.claimed(await gate.child(parent)))
    alive = await gate.child(parent)
    await gate.store.prune(0.0)
    reached = await gate.store.cancel(parent.id, force=False, cascade=True)
    assert (reached.running, reached.ended) == ([parent.id], [alive.id])


async def test_a_cancel_and_an_end_make_one_end(gate: Gate) -> None:
    for _ in range(30):
        task = await gate.born()
        await asyncio.gather(
            gate.store.claim(task.id, "w1", LEASE),
            gate.store.cancel(task.id, force=False, cascade=True),
            gate.store.append(make_event(task.model_copy(update={"attempt": 1}), "task.completed")),
            gate.store.append(make_event(task.model_copy(update={"attempt": 1}), "task.cancelled")),
        )
        log = (await gate.store.events("chat", 0, 1000)).events
        ends = [
            e.type for e in log if e.task_id == task.id and e.type in ("task.completed", "task.cancelled")
        ]
        assert len(ends) == 1
    assert (await gate.held(), await gate.waiting()) == (0, 0)


# -- tasks that move -------------------------------------------------------------------------------------
SPARE = Address(lane=Lane.PROCESS, concurrency_limit=1)
SPARE_HERE = Address(concurrency_limit=1)


async def test_a_fallback_frees_one_agent_and_takes_a_slot_of_the_other(gate: Gate) -> None:
    how: dict[str, Any] = {"options": {"fallback": "spare"}, "fallback": SPARE}
    task = await gate.running("a", agent_limit=1, limit=1, **how)
    second = await gate.born("b", agent_limit=1, **how)
    moved = await gate.append(falling(task))
    assert (moved.agent, moved.lane, moved.id) == ("spare", Lane.PROCESS, task.id)
    assert gate.let_in == [task.id, second.id, task.id] or gate.let_in == [task.id, task.id, second.id]
    assert (await gate.traffic()).admitted == {"async": 1, "process": 1}
    assert [each.id for each in await gate.store.tasks(agent="spare")] == [task.id]
    mine = await gate.born("a", limit=1)  # the same subagent of the same session, whatever the lane
    assert mine.id not in gate.let_in
    await gate.append(falling(await gate.claimed(second)))  # the spare agent is busy
    assert await gate.waiting() == 2
    await gate.end(await gate.claimed(task))
    assert {mine.id, second.id} <= set(gate.let_in[3:])
    await gate.drained()
    assert (await gate.held(), await gate.waiting()) == (0, 0)


async def test_a_suspect_keeps_its_limits_in_the_other_lane(gate: Gate) -> None:
    await gate.store.enlist("w1", Lane.PROCESS, 1, LEASE)
    task = await gate.running(limit=1, agent_limit=1)
    waiting = await gate.born(limit=1, agent_limit=1)
    moved = await gate.append(suspect(task))
    assert (moved.lane, moved.agent) == (Lane.PROCESS, "echo")
    assert gate.let_in[1:] == [waiting.id]  # first come, first served; the suspect waits in the other lane
    assert (await gate.traffic()).admitted == {"async": 1, "process": 0}
    await gate.end(await gate.claimed(waiting))
    assert gate.let_in[2:] == [task.id]
    assert (await gate.traffic()).admitted == {"async": 0, "process": 1}
    await gate.end(await gate.claimed(moved))
    assert await gate.held() == 0


async def test_a_cancel_reaches_a_task_that_waits_in_its_new_lane(one: Gate) -> None:
    task = await one.running(options={"fallback": "spare"}, fallback=SPARE)
    plug = await one.born("plug")
    moved = await one.append(falling(task))
    assert await one.waiting() == 1
    assert (await one.store.cancel(moved.id, force=False, cascade=True)).ended == [moved.id]
    assert await one.waiting() == 0
    await one.end(await one.claimed(plug))
    assert await one.held() == 0


# -- messages that nobody claims -------------------------------------------------------------------------
async def test_a_message_is_sent_again_after_twice_as_long_each_time(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        gate = Gate(store)
        task = await gate.born()
        assert await resent_in(store, task) == pytest.approx(PUBLISH_GRACE, abs=2)
        for times in range(3):
            await store.published([task.id])
            assert await resent_in(store, task) == pytest.approx(RESEND_AFTER * 2**times, abs=2)
            await store._pipe.read("ZADD", f"{store._keys.gate}sent", 0, task.id)
            assert await store.tend() == 1
            assert gate.let_in == [task.id] * (times + 2)
        await gate.claimed(task)
        assert await store._reads.read("EXISTS", f"{store._keys.gate}sent") == 0


async def resent_in(store: RedisStore, task: Task) -> float:
    """Seconds until a message is sent again."""
    at, now = await asyncio.gather(
        store._reads.read("ZSCORE", f"{store._keys.gate}sent", task.id), store._reads.read("TIME")
    )
    return float(at) / 1000 - int(now[0])


# -- nothing is left -------------------------------------------------------------------------------------
async def gate_keys(store: RedisStore) -> list[str]:
    return sorted(await store._reads.read("KEYS", f"{store._keys.gate}*"))


ALL_IDLE = GateLimits(max_running=9)


async def in_every_state(gate: Gate) -> list[Task]:
    """Tasks in line, on the broker, running, aside, coming back, asking, retrying, parked, and moved."""
    plugs = [await gate.running(f"plug {n}") for n in range(3)]
    asking = await gate.running("asking")
    await gate.store.ask(asking, DATA["task.input_required"])
    retrying = await gate.running("retrying", limit=1)
    data = RetryingData(error=ErrorInfo(type="E"), delay=3600.0, failures=1)
    await gate.append(make_event(retrying, "task.retrying", data))
    aside = await gate.running("aside", limit=1, agent_limit=9)
    await gate.store.step_aside(aside)
    rare = await gate.running("rare", agent="rare", agent_limit=1)
    parked = [await gate.born(f"parked {n}", agent="rare", agent_limit=1) for n in range(3)]
    limited = [await gate.born("limited", agent="own", limit=1) for _ in range(3)]
    moved = await gate.running("moved", limit=1, options={"fallback": "spare"}, fallback=SPARE)
    await gate.append(falling(moved))
    poison = await gate.running("poison", limit=1)
    await gate.append(suspect(poison))
    back = await gate.running("back")
    await gate.store.step_aside(back)
    late = [await gate.born(f"late {n % 2}", options={"queue_timeout": 60.0}) for n in range(6)]
    assert await gate.store.step_back(back) is False
    return [*plugs, asking, retrying, aside, rare, *parked, *limited, moved, poison, back, *late]


@pytest.mark.parametrize("how", ["cancelled", "cancelled backwards", "failed", "run"])
async def test_no_key_of_the_gate_is_left_when_all_has_ended(redis_url: str, how: str) -> None:
    async with closing(RedisStore(redis_url, limits=ALL_IDLE)) as store:
        gate = Gate(store)
        tasks = await in_every_state(gate)
        for task in reversed(tasks) if "backwards" in how else tasks:
            if how.startswith("cancelled"):
                await store.cancel(task.id, force=False, cascade=True)
                if not (await gate.loaded(task)).status.is_terminal:
                    await gate.end(task, "cancelled")
            elif how == "failed" or (await gate.loaded(task)).status is not S.QUEUED:
                await gate.end(task, "failed")
        if how == "run":
            await gate.drained()
            await store.cancel(tasks[4].id, force=False, cascade=True)  # its retry is due in an hour
        assert {(await gate.loaded(task)).status.is_terminal for task in tasks} == {True}
        assert await gate_keys(store) == []
        await store.prune(0.0)
        left: list[str] = await store._reads.read("KEYS", "*")
        assert [key for key in left if ":events:" not in key and ":inbox:" not in key] == [
            store._keys.metrics
        ]


# -- the law, by chance ----------------------------------------------------------------------------------
MAX_RUNNING = 5
SESSIONS, AGENTS = ("a", "b", "c"), ("x", "y")
#: By agent: at once over all sessions.
AGENT_LIMITS = {"x": 2, "y": None, "spare": 1}
SUBAGENT_LIMIT = 2


class AnyTraffic(RuleBasedStateMachine):
    """Whatever happens, no limit is exceeded, and everything that may end ends."""

    make_store: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.gate: Gate = self.runner.run(self._open())
        self.tasks: list[Task] = []
        self.aside: set[str] = set()

    async def _open(self) -> Gate:
        return Gate(type(self).make_store())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def task(self, number: int) -> Task:
        found: Task = self.run(self.gate.loaded(self.tasks[number % len(self.tasks)]))
        return found

    @rule(
        session=st.sampled_from(SESSIONS),
        agent=st.sampled_from(AGENTS),
        lane=st.sampled_from(Lane),
        priority=st.sampled_from([5, 5, 9]),
        parent=st.none() | st.integers(0, 30),
    )
    def create(self, session: str, agent: str, lane: Lane, priority: int, parent: int | None) -> None:
        above = self.task(parent) if parent is not None and self.tasks else None
        family: dict[str, Any] = {}
        if above and above.status is S.RUNNING and not above.cancel_requested:
            session, family = above.session_id, {"parent_task_id": above.id, "parent_attempt": above.attempt}
        task = self.gate.born(
            session,
            agent=agent,
            limit=SUBAGENT_LIMIT,
            agent_limit=AGENT_LIMITS[agent],
            to=Address(lane=lane),
            options={"priority": priority, "fallback": "spare"},
            fallback=Address(lane=Lane.ASYNC, concurrency_limit=AGENT_LIMITS["spare"]),
            **family,
        )
        self.tasks.append(self.run(task))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 30))
    def claim(self, number: int) -> None:
        task = self.task(number)
        if self.run(self.gate.store.claim(task.id, "w1", LEASE)):
            self.aside.discard(task.id)

    @precondition(lambda self: self.tasks)
    @rule(
        number=st.integers(0, 30), how=st.sampled_from(["end", "retry", "later", "lost", "suspect", "fall"])
    )
    def leave(self, number: int, how: str) -> None:
        task = self.task(number)
        if task.status is not S.RUNNING:
            return
        later = RetryingData(error=ErrorInfo(type="E"), delay=3600.0, failures=1)
        event = {
            "end": make_event(task, "task.completed"),
            "retry": make_event(task, "task.retrying"),
            "later": make_event(task, "task.retrying", later),
            "lost": make_event(task, "task.attempt_lost"),
            "suspect": suspect(task),
            "fall": falling(task),
        }[how]
        self.run(self.gate.append(event))
        self.aside.discard(task.id)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 30))
    def step_aside(self, number: int) -> None:
        task = self.task(number)
        if task.status is S.RUNNING:
            self.run(self.gate.store.step_aside(task))
            self.aside.add(task.id)

    @precondition(lambda self: self.aside)
    @rule(number=st.integers(0, 30))
    def step_back(self, number: int) -> None:
        aside = [task.id for task in self.tasks if task.id in self.aside]  # ids are random, and tell no order
        task_id = aside[number % len(aside)]
        if self.run(self.gate.store.step_back(self.run(self.gate.store.load(task_id)))):
            self.aside.discard(task_id)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 30), cascade=st.booleans())
    def cancel(self, number: int, cascade: bool) -> None:
        self.run(self.gate.store.cancel(self.task(number).id, force=False, cascade=cascade))

    @rule(lane=st.sampled_from(Lane), slots=st.integers(0, 3))
    def enlist(self, lane: Lane, slots: int) -> None:
        self.run(self.gate.store.enlist(f"w {lane}", lane, slots, LEASE))

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        busy = [
            task
            for task in (self.run(self.gate.loaded(task)) for task in self.tasks)
            if task.status is S.RUNNING and task.id not in self.aside
        ]
        assert len(busy) <= self.run(self.gate.held()) <= MAX_RUNNING
        subagents = Counter((task.birth.subagent, task.session_id) for task in busy)
        assert not subagents or max(subagents.values()) <= SUBAGENT_LIMIT
        agents = Counter(task.agent for task in busy)
        assert all(agents[agent] <= limit for agent, limit in AGENT_LIMITS.items() if limit)

    def teardown(self) -> None:
        try:
            self.run(self.everything_ends())
        finally:
            self.run(self.gate.store.close())
            self.runner.close()

    async def everything_ends(self) -> None:
        """End what runs, claim what was let in, again and again: nobody may be left who waits for ever."""
        for task in self.tasks:  # in an hour
            record = await self.gate.loaded(task)
            if record.status is S.QUEUED and record.reason and record.error and record.error.type == "E":
                await self.gate.store.cancel(task.id, force=False, cascade=False)
        left, before = await self.alive(), -1
        while left and len(left) != before:
            before = len(left)
            for task in left:
                if task.status is S.RUNNING or (await self.gate.store.claim(task.id, "w1", LEASE)):
                    await self.gate.end(task)
            left = await self.alive()
        assert left == []
        traffic = await self.gate.traffic()
        assert (sum(traffic.admitted.values()), traffic.waiting) == (0, 0)
        if isinstance(self.gate.store, RedisStore):
            keys = await gate_keys(self.gate.store)
            assert [
                key
                for key in keys
                if not key.endswith((":counts", ":sizes", ":agents")) and ":workers:" not in key
            ] == []

    async def alive(self) -> list[Task]:
        records = [await self.gate.loaded(task) for task in self.tasks]
        return [task for task in records if not task.status.is_terminal]


@pytest.mark.timeout(240)
def test_no_limit_is_ever_exceeded_and_everything_ends(
    make_store: MakeStore, request: pytest.FixtureRequest
) -> None:
    def fresh() -> Store:
        if over_redis:
            with request.getfixturevalue("redis_server").client() as client:
                client.flushall()
        return make_store(limits=GateLimits(max_running=MAX_RUNNING))

    over_redis = "redis" in request.node.name
    AnyTraffic.make_store = staticmethod(fresh)
    run_by_chance(AnyTraffic, steps=60, share=3 if over_redis else 1)


async def test_a_refused_batch_names_those_that_stand(make_store: MakeStore) -> None:
    @subagent
    async def echo(ctx: TaskContext, text: str) -> str:
        return text

    async with closing(make_store(limits=GateLimits(max_queued=130))) as store:
        session = Hermes(Registry(AgentsConfig(), [echo]), store, MemoryQueue()).session("chat")
        with pytest.raises(TaskRejected, match="130 tasks wait already") as refused:
            await session.dispatch_many(echo, [{"text": str(n)} for n in range(250)])
        assert len(refused.value.accepted) == 130
        assert {task.id for task in await session.tasks(limit=300)} == {*refused.value.accepted}
