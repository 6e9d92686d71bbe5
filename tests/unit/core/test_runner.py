"""One attempt from its claim to its end, whatever the agent does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from hermes_async.core.context import TaskContext
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.core.runner import Runner
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.agent import AgentsConfig, RetryPolicy
from hermes_async.domain.errors import RetryAfter
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import LONGEST_DELAY
from hermes_async.domain.task import Task, TaskStatus
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
RETRY: dict[str, Any] = {"retry_limit": 2, "retry": RetryPolicy(initial=5.0, jitter=False)}


class Report(BaseModel):
    title: str


class EvilError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I have no message")


async def ran(bench: Bench, agent: Subagent[..., Any], *args: Any) -> tuple[AnyEvent | None, Task]:
    task = await bench.dispatch(agent, *args)
    event = await asyncio.wait_for(bench.runner.run(task.id), 10)
    return event, await bench.record(task)


def agent_that(body: Callable[[TaskContext], Any], **options: Any) -> Subagent[..., Any]:
    """An `async def` agent that awaits or returns what the body gives."""

    async def agent(ctx: TaskContext) -> Any:
        found = body(ctx)
        return await found if asyncio.iscoroutine(found) else found

    return subagent(name="agent", **options)(agent)


def another_worker(bench: Bench, *agents: Subagent[..., Any]) -> Runner:
    """A worker over the same store that knows other agents."""
    return Hermes(Registry(AgentsConfig(), agents), bench.store, bench.queue).runner("w2", lease=60.0)


def raising(exc: BaseException) -> Callable[[TaskContext], Any]:
    def body(ctx: TaskContext) -> Any:
        raise exc

    return body


# -- values ----------------------------------------------------------------------------------------------
@subagent
async def async_agent(ctx: TaskContext, report: Report) -> Report:
    return Report(title=report.title.upper())


@subagent
def sync_agent(ctx: TaskContext, report: Report) -> Report:
    assert threading.current_thread() is not threading.main_thread()
    ctx.progress(50)
    return Report(title=report.title.upper())


@pytest.mark.parametrize("agent", [async_agent, sync_agent])
async def test_a_value_completes_the_task(make_bench: MakeBench, agent: Subagent[..., Any]) -> None:
    event, task = await ran(make_bench(agent), agent, Report(title="x"))
    assert event is not None
    assert event.type == "task.completed"
    assert (task.status, task.output, task.attempt) == (TaskStatus.COMPLETED, {"title": "X"}, 1)


async def test_the_last_news_come_before_the_end(make_bench: MakeBench) -> None:
    bench = make_bench(sync_agent)
    await ran(bench, sync_agent, Report(title="x"))
    assert await bench.types() == ["queued", "started", "progress", "completed"]


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * 1_000_001])
async def test_a_value_without_json_form_fails_the_task_for_good(make_bench: MakeBench, value: Any) -> None:
    agent = agent_that(lambda ctx: value, retry_limit=2)
    _, task = await ran(make_bench(agent), agent)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.type == "InvalidInput"
    assert "the result of agent" in task.error.message


async def test_an_input_of_another_version_fails_the_task(make_bench: MakeBench) -> None:
    @subagent(name="agent")
    async def old(ctx: TaskContext, text: str) -> str:
        return text

    @subagent(name="agent")
    async def new(ctx: TaskContext, number: int) -> int:
        return number

    bench = make_bench(old)
    handle = await bench.session.dispatch(old, "text")
    await another_worker(bench, new).run(handle.id)
    task = await handle.task()
    assert task.error is not None
    assert task.status is TaskStatus.FAILED
    assert "number" in task.error.message


# -- failures --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("exc", "type_", "message"),
    [
        (ValueError("no \ud800"), "ValueError", "no ?"),
        (KeyError("k" * 5000), "KeyError", "'" + "k" * 1999),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (asyncio.CancelledError("mine"), "CancelledError", "the agent cancelled itself"),
        (TimeoutError("its own"), "TimeoutError", "its own"),
        (EvilError(), "EvilError", "its message cannot be read: RuntimeError"),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup", "two (2 sub-exceptions)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_an_agent_raises_fails_its_task_only(
    make_bench: MakeBench, exc: BaseException, type_: str, message: str
) -> None:
    agent = agent_that(raising(exc))
    event, task = await ran(make_bench(agent), agent)
    assert event is not None
    assert event.type == "task.failed"
    assert (task.status, task.reason) == (TaskStatus.FAILED, Reason.ERROR)
    assert task.error is not None
    assert (task.error.type, task.error.message) == (type_, message)


async def test_a_def_that_raises_fails_its_task(make_bench: MakeBench) -> None:
    @subagent
    def agent(ctx: TaskContext) -> None:
        raise ValueError("no")

    _, task = await ran(make_bench(agent), agent)
    assert task.error is not None
    assert task.error.type == "ValueError"
    assert "raise ValueError" in task.error.traceback


async def test_a_failure_is_retried_and_then_succeeds(make_bench: MakeBench) -> None:
    results: list[Any] = [ValueError("a"), ValueError("b"), 42]

    def body(ctx: TaskContext) -> Any:
        result = results[ctx.attempt - 1]
        if isinstance(result, Exception):
            raise result
        return result

    agent = agent_that(body, **RETRY)
    bench = make_bench(agent)
    event, task = await ran(bench, agent)
    assert event is not None
    assert (event.type, event.data.delay, event.data.failures) == ("task.retrying", 5.0, 1)
    assert (task.status, task.failures) == (TaskStatus.QUEUED, 1)
    for delay in (5.0, 10.0):
        await bench.hermes.janitor.sweep()
        assert not any(bench.queue._lanes())
        bench.clock.ahead += delay
        await bench.hermes.janitor.sweep()
        event = await bench.runner.run(await bench.queue.get())
    task = await bench.record(task)
    assert (task.status, task.output, task.attempt, task.error) == (TaskStatus.COMPLETED, 42, 3, None)


async def test_the_last_retry_fails_for_good(make_bench: MakeBench) -> None:
    agent = agent_that(raising(ValueError("no")), retry_limit=1, retry=RetryPolicy(initial=1, jitter=False))
    bench = make_bench(agent)
    await ran(bench, agent)
    bench.clock.ahead += 1
    await bench.hermes.janitor.sweep()
    event = await bench.runner.run(await bench.queue.get())
    assert event is not None
    assert (event.type, event.attempt) == ("task.failed", 2)


@pytest.mark.parametrize(
    ("seconds", "delay"), [(0.5, 0.5), (-1, 0), (float("inf"), LONGEST_DELAY), (float("nan"), 0)]
)
async def test_an_agent_may_ask_for_a_later_attempt(
    make_bench: MakeBench, seconds: float, delay: float
) -> None:
    agent = agent_that(raising(RetryAfter(seconds)), **RETRY)
    event, task = await ran(make_bench(agent), agent)
    assert event is not None
    assert (event.type, event.data.delay) == ("task.retrying", delay)
    assert task.error is not None
    assert task.error.traceback == ""


async def test_without_retries_asking_for_one_fails(make_bench: MakeBench) -> None:
    agent = agent_that(raising(RetryAfter(1)))
    event, _ = await ran(make_bench(agent), agent)
    assert event is not None
    assert event.type == "task.failed"


@pytest.mark.parametrize("name", ["LookupError", "builtins.KeyError"])
async def test_what_no_retry_cures_is_not_retried(make_bench: MakeBench, name: str) -> None:
    agent = agent_that(raising(KeyError("k")), retry_limit=2, retry=RetryPolicy(non_retryable=(name,)))
    event, _ = await ran(make_bench(agent), agent)
    assert event is not None
    assert event.type == "task.failed"


# -- time ------------------------------------------------------------------------------------------------
async def forever(ctx: TaskContext) -> None:
    await asyncio.Event().wait()


async def angry(ctx: TaskContext) -> None:
    try:
        await forever(ctx)
    except asyncio.CancelledError:
        raise RuntimeError("how dare you") from None


@pytest.mark.parametrize("body", [forever, angry])
async def test_an_attempt_has_only_its_time(make_bench: MakeBench, body: Any) -> None:
    agent = agent_that(body, timeout=0.02)
    _, task = await ran(make_bench(agent), agent)
    assert (task.status, task.reason) == (TaskStatus.FAILED, Reason.TIMEOUT)
    assert task.error is not None
    assert task.error.message == "no result within 0.02 s"


def heard_of_it(ctx: TaskContext) -> bool:
    """What a `def` does that looks whether it is still wanted."""
    deadline = time.monotonic() + 5
    while not ctx.cancelled and time.monotonic() < deadline:
        time.sleep(0.001)
    return ctx.cancelled


async def test_a_def_out_of_time_is_told_and_left_alone(make_bench: MakeBench) -> None:
    told = threading.Event()

    @subagent(timeout=0.3)
    def agent(ctx: TaskContext) -> None:
        if heard_of_it(ctx):
            told.set()

    _, task = await ran(make_bench(agent), agent)
    assert task.reason is Reason.TIMEOUT
    await wait_until_async(told.is_set)


async def test_a_timeout_is_retried_like_any_failure(make_bench: MakeBench) -> None:
    agent = agent_that(forever, timeout=0.02, **RETRY)
    event, task = await ran(make_bench(agent), agent)
    assert event is not None
    assert (event.type, task.reason) == ("task.retrying", Reason.TIMEOUT)


async def test_who_finishes_in_spite_of_the_timeout_has_finished(make_bench: MakeBench) -> None:
    async def stubborn(ctx: TaskContext) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    agent = agent_that(stubborn, timeout=0.02)
    _, task = await ran(make_bench(agent), agent)
    assert (task.status, task.output) == (TaskStatus.COMPLETED, "done")


# -- cancel ----------------------------------------------------------------------------------------------
async def started(bench: Bench, agent: Subagent[..., Any]) -> tuple[Task, asyncio.Task[AnyEvent | None]]:
    task = await bench.dispatch(agent)
    run = asyncio.create_task(bench.runner.run(task.id))
    await wait_until_async(lambda: _has_started(bench, task))
    return task, run


async def _has_started(bench: Bench, task: Task) -> bool:
    progress = (await bench.record(task)).progress
    return progress is not None


def announced(body: Callable[[TaskContext], Any], **options: Any) -> Subagent[..., Any]:
    """An agent that says when it has started."""

    def begin(ctx: TaskContext) -> Any:
        ctx.progress(1)
        return body(ctx)

    return agent_that(begin, **options)


async def test_who_asked_to_cancel_gets_cancelled(make_bench: MakeBench) -> None:
    agent = announced(forever, **RETRY)
    bench = make_bench(agent)
    task, run = await started(bench, agent)
    await bench.store.append(make_event(task, "task.cancel_requested"))
    run.cancel()
    event = await asyncio.wait_for(run, 5)
    assert event is not None
    assert event.type == "task.cancelled"
    assert (await bench.record(task)).status is TaskStatus.CANCELLED


async def test_a_cancel_that_nobody_asked_for_is_a_shutdown(make_bench: MakeBench) -> None:
    agent = announced(forever)
    bench = make_bench(agent)
    task, run = await started(bench, agent)
    run.cancel()
    event = await asyncio.wait_for(run, 5)
    assert event is not None
    assert (event.type, event.data.cause, event.data.losses) == ("task.attempt_lost", "shutdown", 0)
    assert (await bench.record(task)).status is TaskStatus.QUEUED


async def test_a_swallowed_cancel_still_counts_as_done(make_bench: MakeBench) -> None:
    async def stubborn(ctx: TaskContext) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "done"

    agent = announced(stubborn)
    bench = make_bench(agent)
    task, run = await started(bench, agent)
    await bench.store.append(make_event(task, "task.cancel_requested"))
    run.cancel()
    event = await asyncio.wait_for(run, 5)
    assert event is not None
    assert (event.type, event.data.output) == ("task.completed", "done")


async def test_a_cancel_while_the_end_is_written_comes_too_late(make_bench: MakeBench) -> None:
    agent = agent_that(lambda ctx: 42)
    bench = make_bench(agent)
    task = await bench.dispatch(agent)
    append, reached, go_on = bench.store.append, asyncio.Event(), asyncio.Event()

    async def slow(event: AnyEvent, **how: Any) -> int:
        reached.set()
        await go_on.wait()
        return await append(event, **how)

    bench.store.append = slow  # type: ignore[method-assign]
    run = asyncio.create_task(bench.runner.run(task.id))
    await reached.wait()
    for _ in range(3):
        run.cancel()
        await asyncio.sleep(0)
    go_on.set()
    event = await asyncio.wait_for(run, 5)
    assert event is not None
    assert event.type == "task.completed"
    assert (await bench.record(task)).output == 42


async def test_what_was_cancelled_while_it_waited_is_not_run(make_bench: MakeBench) -> None:
    calls: list[int] = []
    agent = agent_that(lambda ctx: calls.append(1))
    bench = make_bench(agent)
    task = await bench.dispatch(agent)
    await bench.store.append(make_event(task, "task.cancel_requested"))
    event = await bench.runner.run(task.id)
    assert event is not None
    assert event.type == "task.cancelled"
    assert calls == []


async def test_a_def_is_told_of_its_cancel(make_bench: MakeBench) -> None:
    told = threading.Event()

    @subagent
    def agent(ctx: TaskContext) -> None:
        ctx.progress(1)
        if heard_of_it(ctx):
            told.set()

    bench = make_bench(agent)
    task, run = await started(bench, agent)
    await bench.store.append(make_event(task, "task.cancel_requested"))
    run.cancel()
    await asyncio.wait_for(run, 5)
    assert (await bench.record(task)).status is TaskStatus.CANCELLED
    await wait_until_async(told.is_set)


# -- claims ----------------------------------------------------------------------------------------------
async def test_a_second_delivery_is_dropped(make_bench: MakeBench) -> None:
    agent = announced(forever)
    bench = make_bench(agent)
    task, run = await started(bench, agent)
    other = bench.hermes.runner("w2", lease=60)
    assert await other.run(task.id) is None
    run.cancel()
    await run
    assert await bench.types() == ["queued", "started", "progress", "attempt_lost"]


async def test_an_attempt_that_was_given_away_stops_and_says_nothing(make_bench: MakeBench) -> None:
    async def talkative(ctx: TaskContext) -> None:
        while True:
            ctx.progress(1)
            await asyncio.sleep(0.001)

    agent = agent_that(talkative)
    bench = make_bench(agent)
    task, run = await started(bench, agent)
    await bench.store.append(make_event(await bench.record(task), "task.attempt_lost"))
    await bench.store.claim(task.id, "w2", 60.0)
    assert await asyncio.wait_for(run, 5) is None
    record = await bench.record(task)
    assert (record.status, record.worker, record.attempt) == (TaskStatus.RUNNING, "w2", 2)


async def test_an_agent_that_this_worker_lacks_fails_the_task(make_bench: MakeBench) -> None:
    agent = agent_that(lambda ctx: 1)
    bench = make_bench(agent)
    task = await bench.dispatch(agent)
    event = await another_worker(bench).run(task.id)
    task = await bench.record(task)
    assert event is None
    assert (task.status, task.reason) == (TaskStatus.FAILED, Reason.ERROR)
    assert task.error is not None
    assert (task.error.type, task.error.message) == ("UnknownAgent", "no agent 'agent'; known are: none")


async def test_a_task_that_is_gone_is_not_run(bench: Bench) -> None:
    assert await bench.runner.run("t00-gone") is None


@pytest.mark.parametrize("away", range(1, 5))
async def test_a_store_that_is_away_at_any_step_delays_and_loses_nothing(
    make_bench: MakeBench, away: int
) -> None:
    """First at the claim, then at the read before the end, then at the end."""

    def body(ctx: TaskContext) -> Any:
        bench.store.away = away
        raise ValueError("no")

    agent = agent_that(body)
    bench = make_bench(agent)
    task = await bench.dispatch(agent)
    bench.store.away = away
    event = await asyncio.wait_for(bench.runner.run(task.id), 10)
    assert event is not None
    assert event.type == "task.failed"
    assert bench.store.away == 0


@pytest.mark.parametrize("call", ["claim", "append"])
async def test_a_write_whose_reply_was_lost_is_made_once(make_bench: MakeBench, call: str) -> None:
    agent = agent_that(lambda ctx: 1)
    bench = make_bench(agent)
    bench.store.mute = {call: 2}
    event, _ = await ran(bench, agent)
    assert event is not None
    assert await bench.types() == ["queued", "started", "completed"]


async def test_no_task_of_the_loop_outlives_a_run(make_bench: MakeBench) -> None:
    bench = make_bench(sync_agent)
    before = asyncio.all_tasks()
    await ran(bench, sync_agent, Report(title="x"))
    assert asyncio.all_tasks() == before
