"""No task ends before those that it has dispatched, unless it fails: then they are asked to stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from hermes_async.adapters.memory import MemoryStore
from hermes_async.core.context import TaskContext
from hermes_async.core.ports import Parcel
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, GateLimits, RetryPolicy
from hermes_async.domain.errors import TaskRejected
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.testing import LocalHermes
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
ONE = AgentsConfig(limits=GateLimits(max_running=1))


@subagent
async def child(ctx: TaskContext) -> None:
    await asyncio.sleep(3600)


@subagent
async def careless(ctx: TaskContext, error: bool = False) -> str:
    """Start children and await none of them."""
    await ctx.dispatch(child)
    await ctx.dispatch_many(child, [{}])
    if error:
        raise ValueError("no")
    return "done"


@subagent(retry_limit=1, retry=RetryPolicy(initial=0.01))
async def hasty(ctx: TaskContext) -> str:
    """Fail once, with a child at work."""
    await ctx.dispatch(quick if ctx.attempt == 2 else child)
    if ctx.attempt == 1:
        raise ValueError("no")
    return "done"


@subagent
async def quick(ctx: TaskContext) -> str:
    await asyncio.sleep(0.05)
    return "quick"


@subagent
async def careful(ctx: TaskContext) -> int:
    handles = await ctx.dispatch_many(quick, [{}] * 3)
    await asyncio.gather(*handles)
    return len(handles)


@subagent
async def nap(ctx: TaskContext) -> None:
    await asyncio.sleep(0.5)


#: What goes on although its agent has returned.
beside: list[asyncio.Task[Any]] = []


@subagent
async def lively(ctx: TaskContext) -> str:
    """Dispatch one more while only the end of the first is awaited."""
    await ctx.dispatch(quick)
    beside[:] = [asyncio.create_task(ctx.dispatch(nap))]
    return "done"


@subagent
async def late(ctx: TaskContext) -> str:
    """Dispatch when it is over."""
    beside[:] = [asyncio.create_task(ctx.dispatch(quick))]
    return "done"


@subagent(timeout=0.3)
async def slow(ctx: TaskContext) -> str:
    """Be in time, but not its child."""
    await ctx.dispatch(child)
    return "done"


@subagent
async def crowded(ctx: TaskContext) -> str:
    with pytest.raises(TaskRejected, match="wait already"):
        await ctx.dispatch_many(child, [{}] * 150)
    return "done"


async def ends(bench: Bench) -> list[str]:
    return [event.agent or "" for event in await bench.log() if event.type.startswith("task.c")]


async def test_a_batch_of_which_one_is_refused_leaves_nothing_behind() -> None:
    config = AgentsConfig(limits=GateLimits(max_queued=5))
    async with LocalHermes(crowded, child, config=config, slots=2) as hermes:
        assert await (await hermes.session("s").dispatch(crowded)) == "done"
        root, *children = sorted(await hermes.store.tasks(limit=200), key=lambda task: task.birth.depth)
    assert root.status is TaskStatus.COMPLETED
    assert len(children) >= 5
    assert {task.status for task in children} == {TaskStatus.CANCELLED}
    assert max(task.finished_at or 0 for task in children) <= (root.finished_at or 0)


async def test_a_task_is_not_completed_while_its_children_live(make_bench: MakeBench) -> None:
    bench = make_bench(careless, child)
    parent = await bench.dispatch(careless)
    running = asyncio.create_task(bench.runner.run(parent.id))
    ids = [await bench.queue.get() for _ in range(2)]
    await wait_until_async(lambda: bench.awaited == 2)
    first, second = [await bench.store.claim(id_, "w1", 60.0) for id_ in ids]
    assert first is not None
    assert second is not None
    assert await bench.hermes.journal.append(make_event(first, "task.completed"))
    assert (await bench.record(parent)).status is TaskStatus.RUNNING
    await (await bench.hermes.handle(second.id)).cancel()
    assert (await bench.record(parent)).status is TaskStatus.RUNNING  # asked to stop, and not yet stopped
    assert await bench.hermes.journal.append(make_event(second, "task.cancelled"))
    done = await asyncio.wait_for(running, 5)
    assert done is not None
    assert (done.type, done.data.output) == ("task.completed", "done")
    assert await ends(bench) == ["child", "child", "child", "careless"]  # a cancel is asked for, too


async def test_nor_while_one_lives_that_was_dispatched_meanwhile() -> None:
    async with LocalHermes(lively, quick, nap) as hermes:
        root = await (await hermes.session("chat").dispatch(lively)).ended()
        others = [task for task in await hermes.store.tasks(limit=9) if task.id != root.id]
    assert {task.agent: task.status for task in others} == dict.fromkeys(("quick", "nap"), root.status)
    assert max(task.finished_at or 0 for task in others) <= (root.finished_at or 0)


async def test_nothing_is_dispatched_for_a_task_whose_agent_is_done() -> None:
    async with LocalHermes(late, quick) as hermes:
        session = hermes.session("chat")
        assert await (await session.dispatch(late)) == "done"
        with pytest.raises(TaskRejected, match=r"quick was not accepted: its parent task .* is not running"):
            await beside[0]
        assert len(await session.tasks()) == 1


async def test_who_awaited_its_children_asks_for_nothing_at_its_end(make_bench: MakeBench) -> None:
    bench = make_bench(careful, quick)
    parent = await bench.dispatch(careful)
    running = asyncio.create_task(bench.runner.run(parent.id))
    await asyncio.gather(*[bench.runner.run(await bench.queue.get()) for _ in range(3)])
    await asyncio.wait_for(running, 5)
    assert bench.store.calls.count("load") < 12  # twice for each child that was awaited, at most


@pytest.mark.parametrize("agent", [careless.options(), slow.options()], ids=["raised", "timed out"])
async def test_a_task_that_fails_asks_its_children_to_stop(agent: Any) -> None:
    async with LocalHermes(careless, slow, child) as hermes:
        session = hermes.session("chat")
        handle = await session.dispatch(agent, **({"error": True} if agent.name == "careless" else {}))
        assert (await asyncio.wait_for(handle.ended(), 5)).status is TaskStatus.FAILED
        for task in await session.tasks():
            if task.id != handle.id:
                ended = await asyncio.wait_for((await hermes.handle(task.id)).ended(), 5)
                assert ended.status is TaskStatus.CANCELLED


async def test_the_next_attempt_does_not_meet_the_children_of_the_one_before() -> None:
    async with LocalHermes(hasty, child, quick) as hermes:
        session = hermes.session("chat")
        assert await asyncio.wait_for(await session.dispatch(hasty), 10) == "done"
        states = {task.agent: task.status for task in await session.tasks()}
    assert states == {
        "hasty": TaskStatus.COMPLETED,
        "child": TaskStatus.CANCELLED,
        "quick": TaskStatus.COMPLETED,
    }


async def test_who_waits_for_its_children_at_its_end_takes_no_slot() -> None:
    async with LocalHermes(hasty, child, quick, config=ONE, slots=1) as hermes:
        assert await asyncio.wait_for(await hermes.session("chat").dispatch(hasty), 10) == "done"


async def test_a_cancel_reaches_a_task_that_only_waits_for_its_children() -> None:
    async with LocalHermes(careless, child) as hermes:
        session = hermes.session("chat")
        handle = await session.dispatch(careless)
        await wait_until_async(lambda: _all_run(session, 3))
        await handle.cancel()
        assert (await asyncio.wait_for(handle.ended(), 5)).status is TaskStatus.CANCELLED
        await wait_until_async(lambda: _all_are(session, TaskStatus.CANCELLED))


async def _all_run(session: Any, count: int) -> bool:
    return len(await session.tasks(status=TaskStatus.RUNNING)) == count


async def _all_are(session: Any, status: TaskStatus) -> bool:
    return {task.status for task in await session.tasks()} == {status}


# -- a dispatch that is cut short ------------------------------------------------------------------------
@subagent
async def hurried(ctx: TaskContext, fails: bool = False) -> str:
    """Give a dispatch up while it is under way."""
    dispatching = asyncio.create_task(ctx.dispatch(child))
    await asyncio.sleep(0)
    dispatching.cancel()
    with suppress(asyncio.CancelledError):
        await dispatching
    if fails:
        raise ValueError("no")
    return "done"


class SlowStore(MemoryStore):
    """Writes tasks slowly: whoever asked for one may be gone."""

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        await asyncio.sleep(0.05)
        return await super().create(task, parcel, idempotency_key)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_child_whose_dispatch_was_cut_short_does_not_outlive_its_parent(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr("hermes_async.testing.MemoryStore", SlowStore)
    async with LocalHermes(hurried, child) as hermes:
        session = hermes.session("chat")
        handle = await session.dispatch(hurried, fails=fails)
        ended = await asyncio.wait_for(handle.ended(), 5)
        assert ended.status is (TaskStatus.FAILED if fails else TaskStatus.COMPLETED)
        [born] = [task for task in await session.tasks() if task.agent == "child"]
        assert born.cancel_requested
        await asyncio.wait_for((await hermes.handle(born.id)).ended(), 5)
        if not fails:  # it has waited for its end
            assert born.status is TaskStatus.CANCELLED


async def test_workers_are_told_at_once_of_children_that_a_dead_parent_has_left(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(careless, child)
    told: list[tuple[str, bool]] = []
    bench.queue.on_revoke(lambda *what: told.append(what))
    parent = await bench.dispatch(careless)
    running = asyncio.create_task(bench.runner.run(parent.id))
    first = await bench.store.claim(await bench.queue.get(), "w2", 3600.0)
    assert first is not None
    await wait_until_async(lambda: bench.awaited == 2)
    bench.clock.ahead += 61
    assert (await bench.hermes.janitor.sweep()).lost == 1
    await wait_until_async(lambda: told == [(first.id, False)])
    assert (await bench.record(first)).cancel_requested
    running.cancel()
    await asyncio.wait({running})
