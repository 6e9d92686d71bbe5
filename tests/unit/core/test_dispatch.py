"""The only birth of a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.dispatch import Origin
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec, GateLimits, SessionSpec, SubagentSpec, Webhook
from hermes_async.domain.errors import (
    IdempotencyConflict,
    InvalidInput,
    StoreUnavailable,
    TaskRejected,
    UnknownAgent,
    UserError,
)
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane
from tests.support.bench import MakeBench

pytestmark = pytest.mark.anyio


@subagent(priority=7)
async def echo(ctx: TaskContext, text: str, times: int = 1) -> str:
    return text * times


@subagent
def count(ctx: TaskContext) -> int:
    return 1


@subagent
async def parent(ctx: TaskContext) -> str:
    child = await ctx.dispatch(echo, "from below")
    return child.id


CONFIG = AgentsConfig(
    agents={
        "boss": AgentSpec(
            type="conversational", subagents=(SubagentSpec(id="say", agent="echo", timeout=3.0),)
        ),
        "echo": AgentSpec(run="nowhere:echo"),
    }
)


async def test_a_handle_comes_with_record_event_and_message(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    handle = await bench.session.dispatch(echo, "hi", times=2)
    task = await handle.task()
    assert (handle.id, handle.session_id, handle.trace_id) == (task.id, "chat", task.birth.trace_id)
    assert task.birth.input == {"text": "hi", "times": 2}
    assert (task.agent, task.birth.subagent, task.lane) == ("echo", "echo", Lane.ASYNC)
    assert (task.birth.depth, task.birth.parent, task.birth.parent_task_id) == (0, None, None)
    assert await bench.types() == ["queued"]
    assert await bench.queue.get() == task.id
    bench.clock.ahead = 3600
    assert (await bench.hermes.janitor.sweep()).released == 1  # confirmed, but for an hour nobody came for it
    assert await bench.queue.get() == task.id


async def test_a_parent_s_name_and_options_are_kept(make_bench: MakeBench) -> None:
    bench = make_bench(echo, config=CONFIG)
    session = bench.hermes.session("chat", parent="boss")
    task = await (await session.dispatch("say", text="hi")).task()
    assert (task.agent, task.birth.subagent, task.birth.parent) == ("echo", "say", "boss")
    assert (task.birth.options.timeout, task.birth.options.priority) == (3.0, 7)


@pytest.mark.parametrize(
    ("subagent_", "args", "error"),
    [("nobody", (), UnknownAgent), (echo, (), InvalidInput), (echo, (1,), InvalidInput)],
)
async def test_what_cannot_run_leaves_nothing_behind(
    make_bench: MakeBench, subagent_: Any, args: Any, error: type[Exception]
) -> None:
    bench = make_bench(echo)
    with pytest.raises(error):
        await bench.session.dispatch(subagent_, *args)
    assert await bench.hermes.tasks() == []


async def test_a_store_that_is_away_is_told_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    bench.store.away = 1
    with pytest.raises(StoreUnavailable):
        await bench.session.dispatch(echo, "hi")
    assert await bench.hermes.tasks() == []


async def test_the_same_key_gives_the_same_task_once_on_the_queue(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    handles = await asyncio.gather(
        *(bench.session.submit("echo", {"text": "hi"}, idempotency_key="k") for _ in range(5))
    )
    assert len({handle.id for handle in handles}) == 1
    assert await bench.queue.get() == handles[0].id
    assert not any(bench.queue._lanes())
    with pytest.raises(IdempotencyConflict):
        await bench.session.submit("echo", {"text": "ho"}, idempotency_key="k")


@pytest.mark.parametrize("key", ["", "\ud800", "x" * 201])
async def test_an_unfit_key_is_refused(make_bench: MakeBench, key: str) -> None:
    bench = make_bench(echo)
    with pytest.raises(InvalidInput, match="idempotency key"):
        await bench.session.submit("echo", "hi", idempotency_key=key)


@pytest.mark.parametrize(
    ("input_", "bound"), [("hi", {"text": "hi"}), ('{"text": "x", "times": 2}', {"text": "x", "times": 2})]
)
async def test_a_task_can_be_made_from_text(make_bench: MakeBench, input_: str, bound: Any) -> None:
    bench = make_bench(echo)
    task = await (await bench.session.submit("echo", input_)).task()
    assert task.birth.input == bound


async def test_the_most_urgent_is_first_in_the_queue(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    handles = {p: await bench.session.submit("echo", "hi", priority=p) for p in (5, 0, 9, None, 1)}
    for wrong in (10, -1, 5.0, "5"):
        with pytest.raises(UserError, match=r"subagent .* cannot have this priority: Input should be"):
            await bench.session.submit("echo", "hi", priority=wrong)  # type: ignore[arg-type]
    order = [await bench.queue.get() for _ in handles]
    assert order == [handles[p].id for p in (9, None, 5, 1, 0)]


async def test_a_child_belongs_to_its_parent_s_tree(make_bench: MakeBench) -> None:
    bench = make_bench(echo, parent)
    top = await bench.dispatch(parent)
    running = asyncio.create_task(bench.runner.run(top.id))
    child = await bench.store.load(await bench.queue.get())
    assert child is not None
    assert (child.session_id, child.birth.parent, child.birth.depth) == ("chat", "parent", 1)
    assert (child.birth.parent_task_id, child.birth.root_task_id) == (top.id, top.id)
    assert child.birth.trace_id == top.birth.trace_id
    assert child.birth.traceparent != top.birth.traceparent  # it has a dispatch of its own
    assert Origin.of(child).root_task_id == top.id
    assert Origin.of(child).depth == 2
    await bench.runner.run(child.id)
    done = await running
    assert done is not None
    assert done.data.output == child.id


async def test_a_def_goes_to_the_process_lane(make_bench: MakeBench) -> None:
    bench = make_bench(count)
    assert (await bench.dispatch(count)).lane is Lane.PROCESS


# -- limits, and many at once ----------------------------------------------------------------------------
@subagent
async def dig(ctx: TaskContext) -> str:
    child = await ctx.dispatch(dig)
    return child.id


async def test_tasks_are_delegated_so_many_levels_deep_and_no_deeper(make_bench: MakeBench) -> None:
    bench = make_bench(dig, config=AgentsConfig(limits=GateLimits(max_depth=3)))
    task_id = (await bench.dispatch(dig)).id
    above = []
    for depth in range(2):
        above.append(asyncio.create_task(bench.runner.run(task_id)))
        task_id = await bench.queue.get()
        child = await bench.store.load(task_id)
        assert child is not None
        assert child.birth.depth == depth + 1
    event = await bench.runner.run(task_id)
    assert event is not None
    assert [done.type for done in await asyncio.gather(*above) if done] == ["task.completed"] * 2
    assert event.type == "task.failed"
    assert event.data.error.type == "TaskRejected"
    assert event.data.error.message == (
        "dig was not accepted: tasks may be delegated 3 levels deep, and this would be one more; "
        "do the work yourself"
    )
    assert len(await bench.hermes.tasks()) == 3


async def test_many_are_dispatched_in_the_order_of_their_inputs(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    handles = await bench.session.dispatch_many(echo, [{"text": str(n)} for n in range(50)])
    assert [(await handle.task()).birth.input["text"] for handle in handles] == [str(n) for n in range(50)]
    assert [await bench.queue.get() for _ in handles] == [handle.id for handle in handles]
    assert await bench.session.dispatch_many(echo, []) == []
    with pytest.raises(InvalidInput, match=r"^echo: an input is the arguments by name, .*, not 'text'$"):
        await bench.session.dispatch_many("echo", {"text": "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", [[{"text": "a"}, {}], [{"text": "a"}, {"text": "b", "tmies": 2}]])
async def test_one_input_that_does_not_fit_starts_none(make_bench: MakeBench, inputs: Any) -> None:
    bench = make_bench(echo)
    with pytest.raises(InvalidInput):
        await bench.session.dispatch_many(echo, inputs)
    assert await bench.hermes.tasks() == []


async def test_of_many_that_are_too_many_the_first_stand(make_bench: MakeBench) -> None:
    bench = make_bench(echo, config=AgentsConfig(limits=GateLimits(max_queued=3)))
    with pytest.raises(TaskRejected, match="3 tasks wait already") as refused:
        await bench.session.dispatch_many(echo, [{"text": str(n)} for n in range(5)])
    assert refused.value.reason is Reason.LIMIT_EXCEEDED
    handles = [await bench.session.handle(task_id) for task_id in refused.value.accepted]
    assert [(await handle.task()).birth.input["text"] for handle in handles] == ["0", "1", "2"]
    assert len(await bench.hermes.tasks()) == 3


async def test_who_is_to_be_cancelled_starts_nobody(make_bench: MakeBench) -> None:
    bench = make_bench(echo, parent)
    top = await bench.dispatch(parent)
    await bench.store.claim(top.id, "w1", 60.0, "again")
    await bench.store.cancel(top.id, force=False, cascade=True)
    origin = Origin.of(await bench.record(top))
    with pytest.raises(TaskRejected, match=r"parent task .* is to be cancelled") as refused:
        await bench.hermes._dispatcher.of(origin).dispatch(echo, "late")
    assert refused.value.reason is None
    assert len(await bench.hermes.tasks()) == 1


async def test_the_parent_says_whether_its_callbacks_are_in_order(make_bench: MakeBench) -> None:
    free = CONFIG.agents["boss"].model_copy(update={"session": SessionSpec(lock="none"), "name": "free"})
    bench = make_bench(echo, config=AgentsConfig(agents={**CONFIG.agents, "free": free}))
    ordered = {}
    for name in (None, "boss", "free"):
        session = bench.hermes.session(parent=name)
        handle = await session.dispatch(echo if name is None else "say", "hi")
        ordered[name] = (await handle.task()).birth.ordered
    assert ordered == {None: True, "boss": True, "free": False}


async def test_no_secret_of_a_webhook_goes_into_a_record(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    hook = Webhook(url="https://example.com/hook?key=hush-hush", secret="a secret, long enough to be one")
    asked = echo.options(webhook=hook)
    handles = [
        await bench.session.dispatch(asked, "hi"),
        *await bench.session.dispatch_many(asked, [{"text": ""}]),
    ]
    for handle in handles:
        kept = (await handle.task()).birth.options.webhook
        assert kept == Webhook(url="https://example.com/hook")
