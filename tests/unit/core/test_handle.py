"""What the parent holds: result, events from any point, cancel."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.dispatch import Origin
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.core.page import Page
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import (
    Closed,
    InvalidInput,
    TaskCancelled,
    TaskFailed,
    TaskRejected,
    UnknownTask,
)
from hermes_async.domain.events import MessageData, SessionMessage
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import TaskStatus
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
PATIENCE = 5.0


@dataclass
class Report:
    title: str


@subagent
async def report(ctx: TaskContext, title: str) -> Report:
    ctx.progress(50, "half")
    return Report(title)


@subagent
async def fail(ctx: TaskContext) -> None:
    raise ValueError("no")


@subagent
async def sleep(ctx: TaskContext) -> None:
    await asyncio.Event().wait()


async def noise(bench: Bench, times: int = 1) -> None:
    """News of the session that are not the task's."""
    for n in range(times):
        await bench.store.post(
            SessionMessage(
                id=f"noise {await bench.store.last_seq('chat')} {n}",
                type="session.message",
                session_id="chat",
                data=MessageData(text="noise"),
            )
        )


async def soon(waiting: Any) -> Any:
    return await asyncio.wait_for(waiting, PATIENCE)


# -- result ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_result_is_the_agent_s_own_type(make_bench: MakeBench, when: str) -> None:
    bench = make_bench(report)
    handle = await bench.session.dispatch(report, "t")
    waiting = asyncio.ensure_future(handle.result())
    if when == "after":
        await bench.runner.run(handle.id)
        assert await soon(handle) == Report("t")
    else:
        await asyncio.sleep(0)
        await bench.runner.run(handle.id)
    assert await soon(waiting) == Report("t")


@subagent
async def forget(ctx: TaskContext) -> list[int]:
    return []


@subagent(name="forget")
async def forget_in_words(ctx: TaskContext) -> list[str]:
    return ["none"]


async def test_a_result_of_another_type_is_told_in_one_sentence(make_bench: MakeBench) -> None:
    """Workers may have another version of an agent."""
    bench = make_bench(forget)
    handle = await bench.session.dispatch(forget)
    worker = Hermes(Registry(AgentsConfig(), [forget_in_words]), bench.store, bench.queue)
    await worker.runner("w2", lease=60.0).run(handle.id)
    with pytest.raises(InvalidInput, match="the result of forget does not fit: 0: Input should be a valid"):
        await soon(handle)
    assert (await handle.task()).output == ["none"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_follows_the_session_has_the_end_from_its_log(make_bench: MakeBench, when: str) -> None:
    bench = make_bench(report, fail)
    async with bench.hermes.feed.follow("chat") as reader:
        handles = [
            await bench.session.dispatch(report, "t"),
            await bench.session.dispatch(fail),
            *await bench.session.dispatch_many(report, [{"title": "u"}]),
        ]
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles if when == "before"]
        for handle in handles:
            await bench.runner.run(handle.id)
        last = await bench.store.last_seq("chat")
        await wait_until_async(lambda: reader.seq == last)
        bench.store.calls.clear()
        first, failure, second = await soon(asyncio.gather(*(waiting or handles), return_exceptions=True))
    assert (first, second) == (Report("t"), Report("u"))
    assert (type(failure), failure.reason) == (TaskFailed, Reason.ERROR)
    assert "of fail failed (error): ValueError: no" in str(failure)
    assert "load" not in bench.store.calls


async def test_the_end_of_an_earlier_task_is_looked_up(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    first = await bench.session.submit("report", {"title": "t"}, idempotency_key="k")
    await bench.runner.run(first.id)
    async with bench.hermes.feed.follow("chat"):
        again = await bench.session.submit("report", {"title": "t"}, idempotency_key="k")
        assert await soon(again) == Report("t")


async def test_a_follower_looks_up_an_end_that_was_trimmed_before_it_could_be_read(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(report, max_length=5)
    async with bench.hermes.feed.follow("chat"):
        handle = await bench.session.dispatch(report, "t")
        waiting = asyncio.ensure_future(handle.ended())
        await wait_until_async(lambda: bench.followers == 2)
        claimed = await bench.store.claim(handle.id, "w1", 60.0)
        assert claimed is not None
        # no await that lets the reader look before all is written and trimmed
        await bench.store.append(make_event(claimed, "task.completed"))
        await noise(bench, 20)
        assert (await soon(waiting)).status is TaskStatus.COMPLETED


async def test_another_process_finds_it_by_its_id(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    task = await bench.dispatch(report, "t")
    await bench.runner.run(task.id)
    handle = await bench.hermes.handle(task.id)
    assert await soon(handle) == {"title": "t"}
    assert repr(handle) == f"<TaskHandle {task.id}>"


async def test_a_failure_is_raised_with_what_the_agent_raised(make_bench: MakeBench) -> None:
    bench = make_bench(fail)
    handle = await bench.session.dispatch(fail)
    await bench.runner.run(handle.id)
    with pytest.raises(TaskFailed, match=rf"task {handle.id} of fail failed \(error\): ValueError: no") as e:
        await soon(handle)
    assert (e.value.task_id, e.value.reason) == (handle.id, Reason.ERROR)
    assert e.value.error is not None
    assert "raise ValueError" in e.value.error.traceback
    assert (await soon(handle.ended())).status is TaskStatus.FAILED


@pytest.mark.parametrize(("end", "error"), [("cancelled", TaskCancelled), ("rejected", TaskRejected)])
async def test_other_ends_have_their_own_errors(
    make_bench: MakeBench, end: str, error: type[Exception]
) -> None:
    bench = make_bench(report)
    handle = await bench.session.dispatch(report, "t")
    await bench.store.append(make_event(await handle.task(), f"task.{end}"))
    with pytest.raises(error, match=f"of report {end}"):
        await soon(handle)


async def test_an_unknown_task_is_told_with_a_cure(bench: Bench) -> None:
    with pytest.raises(UnknownTask, match="hermes-async task list"):
        await bench.hermes.handle("t01-nobody")


async def test_closing_wakes_who_waits(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    handle = await bench.session.dispatch(report, "t")
    waiting = asyncio.ensure_future(handle.result())
    listening = asyncio.ensure_future(anext(handle.events(after=1)))
    await wait_until_async(lambda: bench.followers == 2)
    await bench.hermes.close()
    for each in (waiting, listening):
        with pytest.raises(Closed):
            await soon(each)


# -- events ----------------------------------------------------------------------------------------------
async def finished(bench: Bench) -> tuple[TaskHandle[Any], list[int]]:
    """A task that has ended between other news, and the seqs of its events."""
    await noise(bench)
    handle = await bench.session.dispatch(report, "t")
    await noise(bench)
    await bench.runner.run(handle.id)
    await noise(bench)
    return handle, [event.seq for event in await bench.log() if event.task_id == handle.id]


async def test_events_resume_after_any_seq_also_beyond_the_end(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    handle, seqs = await finished(bench)
    last = await bench.store.last_seq("chat")
    for after in range(last + 3):
        read = await soon(_listed(handle, after))
        assert read == [seq for seq in seqs if seq > after]


async def _listed(handle: TaskHandle[Any], after: int) -> list[int]:
    return [event.seq async for event in handle.events(after)]


async def test_events_come_as_they_happen_and_stop_at_the_end(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    handle = await bench.session.dispatch(report, "t")
    types: list[str] = []

    async def listen() -> None:
        async for event in handle.events():
            types.append(event.type)

    listening = asyncio.create_task(listen())
    await wait_until_async(lambda: types == ["task.queued"])
    await noise(bench, 3)
    await bench.runner.run(handle.id)
    await soon(listening)
    assert types == ["task.queued", "task.started", "task.progress", "task.completed"]


async def test_an_end_behind_the_cursor_is_noticed_among_other_news(make_bench: MakeBench) -> None:
    """The end lies behind, and just while that is looked up the log moves on."""
    bench = make_bench(report)
    handle, _ = await finished(bench)
    asked = bench.store.last_seq

    async def meanwhile(session_id: str) -> int:
        bench.store.last_seq = asked  # type: ignore[method-assign]
        await noise(bench)
        return await asked(session_id)

    after = await bench.store.last_seq("chat")
    async with bench.hermes.feed.follow("chat"):
        bench.store.last_seq = meanwhile  # type: ignore[method-assign]
        assert await soon(_listed(handle, after)) == []


async def test_a_result_is_found_although_its_event_was_trimmed(make_bench: MakeBench) -> None:
    bench = make_bench(report, max_length=5)
    slow = await bench.session.dispatch(report, "slow")
    handle = await bench.session.dispatch(report, "t")
    waiting = [asyncio.ensure_future(each.result()) for each in (slow, handle)]
    listening = asyncio.ensure_future(_listed(handle, 1))
    await wait_until_async(lambda: bench.followers == 3)
    await wait_until_async(lambda: bench.awaited == 2)
    claimed = await bench.store.claim(handle.id, "w1", 60.0)
    assert claimed is not None
    done = make_event(claimed, "task.completed")
    # no await that lets the reader look before all is written and trimmed
    await bench.store.append(done.model_copy(update={"data": done.data.model_copy(update={"output": None})}))
    await noise(bench, 20)
    with pytest.raises(InvalidInput, match="does not fit: Input should be an object"):
        await soon(waiting[1])
    await soon(listening)
    assert not waiting[0].done()
    await bench.runner.run(slow.id)
    assert await soon(waiting[0]) == Report("slow")


async def test_events_that_are_gone_show_as_a_gap_with_what_became_of_the_task(make_bench: MakeBench) -> None:
    bench = make_bench(report, sleep, max_length=10)
    task = await bench.dispatch(report, "t")
    await bench.runner.run(task.id)
    handle = await bench.hermes.handle(task.id)
    await noise(bench, 7)  # its first events are gone, its end is not
    first, *rest = await soon(_items(handle, 0))
    assert (first.type, first.first, first.snapshot[task.id]["status"]) == ("gap", 1, "completed")
    assert [event.seq for event in rest] == list(range(first.last + 1, 5))
    assert rest[-1].type == "task.completed"
    await noise(bench, 20)
    for after in range(4):
        [gap] = await soon(_items(handle, after))
        assert (gap.type, gap.first, gap.seq) == ("gap", after + 1, gap.last)
        assert gap.snapshot.keys() == {task.id}
    running = await bench.dispatch(sleep)
    events = (await bench.hermes.handle(running.id)).events()
    await noise(bench, 20)  # it waits in line, and the event that says so is gone
    gap = await soon(anext(events))
    assert (gap.type, gap.snapshot[running.id]["status"]) == ("gap", "queued")


async def test_a_task_younger_than_what_is_gone_has_no_gap(make_bench: MakeBench) -> None:
    """A chat that goes on for months does not tell of it with every task."""
    bench = make_bench(report, max_length=10)
    await noise(bench, 40)
    task = await bench.dispatch(report, "t")
    await bench.runner.run(task.id)
    events = await soon(_items(await bench.hermes.handle(task.id), 0))
    assert [event.type for event in events] == [f"task.{each}" for each in LIFE]


async def test_who_asks_for_a_young_task_reads_nothing_of_a_long_chat(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(report)
    await noise(bench, 40)
    task = await bench.dispatch(report, "t")
    await bench.runner.run(task.id)
    assert await bench.store.born(task.id) == 41
    assert await bench.store.born("t00-nobody") == 0
    asked: list[int] = []
    read = bench.store.events

    async def events(session_id: str, after: int, limit: int) -> Page:
        asked.append(after)
        return await read(session_id, after, limit)

    monkeypatch.setattr(bench.store, "events", events)
    events = await soon(_items(await bench.hermes.handle(task.id), 0))
    assert events[0].seq == 41
    assert min(asked) == 40


async def _items(handle: TaskHandle[Any], after: int) -> list[Any]:
    return [item async for item in handle.events(after)]


LIFE = ["queued", "started", "progress", "completed"]


# -- cancel ----------------------------------------------------------------------------------------------
async def test_a_queued_task_is_cancelled_on_the_spot(make_bench: MakeBench) -> None:
    bench = make_bench(sleep)
    handle = await bench.session.dispatch(sleep)
    assert await handle.cancel() is True
    assert await bench.types() == ["queued", "cancel_requested", "cancelled"]
    assert await bench.runner.run(handle.id) is None
    assert await handle.cancel() is False
    with pytest.raises(TaskCancelled):
        await soon(handle)


@pytest.mark.parametrize("force", [False, True])
async def test_a_running_task_is_revoked(make_bench: MakeBench, force: bool) -> None:
    bench = make_bench(sleep)
    handle = await bench.session.dispatch(sleep)
    run = asyncio.create_task(bench.runner.run(handle.id))
    revoked: list[tuple[str, bool]] = []
    bench.queue.on_revoke(lambda id, force: (revoked.append((id, force)), run.cancel())[0])
    await wait_until_async(lambda: _is(handle, TaskStatus.RUNNING))
    assert await handle.cancel(force=force) is True
    assert revoked == [(handle.id, force)]
    event = await soon(run)
    assert event.type == "task.cancelled"
    with pytest.raises(TaskCancelled):
        await soon(handle)


async def _is(handle: TaskHandle[Any], status: TaskStatus) -> bool:
    return (await handle.task()).status is status


async def test_an_ended_task_cannot_be_cancelled(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    handle = await bench.session.dispatch(report, "t")
    await bench.runner.run(handle.id)
    assert await handle.cancel() is False
    assert await soon(handle) == Report("t")


async def test_a_cancel_stops_the_whole_tree_and_tells_whoever_runs_it_once(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    revoked: list[tuple[str, bool]] = []
    bench.queue.on_revoke(lambda id, force: revoked.append((id, force)))
    top = await bench.session.dispatch(report, "top")
    tree = [await bench.store.claim(top.id, "w1", 60.0)]
    for title in ("runs", "waits"):
        assert tree[0] is not None
        below = bench.hermes._dispatcher.of(Origin.of(tree[0]))
        child = await below.dispatch(report, title)
        if title == "runs":
            await bench.store.claim(child.id, "w2", 60.0)
        else:
            waiting = child
    assert await top.cancel(force=True) is True
    assert len(revoked) == 2
    assert {force for _, force in revoked} == {True}
    assert waiting.id not in dict(revoked)
    assert (await waiting.task()).status is TaskStatus.CANCELLED
    assert await top.cancel() is True  # it has not ended yet; its workers may not have heard
    assert await waiting.cancel() is False
    assert (await bench.types()).count("cancel_requested") == 3


async def test_a_cancel_without_cascade_asks_one_only(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    top = await bench.session.dispatch(report, "top")
    task = await bench.store.claim(top.id, "w1", 60.0)
    assert task is not None
    child = await bench.hermes._dispatcher.of(Origin.of(task)).dispatch(report, "below")
    assert await top.cancel(cascade=False) is True
    assert not (await child.task()).cancel_requested


async def test_many_cancels_at_once_make_one_end(make_bench: MakeBench) -> None:
    bench = make_bench(report)
    handle = await bench.session.dispatch(report, "t")
    told = await asyncio.gather(*(handle.cancel() for _ in range(10)))
    assert told.count(True) == 1
    assert await bench.types() == ["queued", "cancel_requested", "cancelled"]
