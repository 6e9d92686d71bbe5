"""What a trace hears of a task's way, and the ids that several processes must agree on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from hermes_async.core.present import present
from hermes_async.core.tracing import TraceContext, Untraced, asking, made_up
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.lifecycle import Lost, decide
from hermes_async.domain.spans import Part, span_id
from hermes_async.domain.task import Task
from hermes_async.sdk import TaskContext, subagent
from tests.support.bench import MakeBench

pytestmark = pytest.mark.anyio


class Ear(Untraced):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @contextmanager
    def sending(self, tasks: Sequence[Task]) -> Iterator[None]:
        yield
        self.heard.append(f"sent {len(tasks)}")

    @contextmanager
    def attempt(self, task: Task) -> Iterator[None]:
        self.heard.append(f"begun {task.attempt}")
        yield

    def ended(self, task: Task, event: AnyEvent | None) -> None:
        self.heard.append(f"{event.type if event else 'lost'} {task.attempt}")


@subagent
async def tell(ctx: TaskContext) -> str:
    """Say in which attempt it runs."""
    here = present()
    return f"{here.id}:{here.attempt}" if here else "nowhere"


@subagent
def tell_in_thread(ctx: TaskContext) -> str:
    """Say in which attempt it runs."""
    here = present()
    return f"{here.id}:{here.attempt}" if here else "nowhere"


@subagent(retry_limit=1)
async def stumble(ctx: TaskContext) -> int:
    """Fail once."""
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return ctx.attempt


@pytest.mark.parametrize("agent", [tell, tell_in_thread])
async def test_code_of_an_agent_knows_its_attempt(make_bench: MakeBench, agent: Any) -> None:
    bench = make_bench(tell, tell_in_thread)
    task = await bench.dispatch(agent)
    await bench.runner.run(task.id)
    assert (await bench.record(task)).output == f"{task.id}:1"
    assert present() is None


async def test_a_task_is_in_the_trace_of_the_request_that_started_it(make_bench: MakeBench) -> None:
    bench = make_bench(tell)
    request = TraceContext.read(f"00-{'a' * 32}-{'b' * 16}-01", "vendor=x")
    with asking(request):
        task = await bench.dispatch(tell)
    assert TraceContext(task.birth.traceparent, task.birth.tracestate) == request


async def test_a_trace_hears_of_dispatch_attempts_and_ends(make_bench: MakeBench) -> None:
    ear = Ear()
    bench = make_bench(stumble, tracing=ear)
    task = await bench.dispatch(stumble)
    await bench.runner.run(task.id)
    bench.clock.ahead += 3_600
    await bench.store.tend()
    await bench.runner.run(task.id)
    assert ear.heard == ["sent 1", "begun 1", "task.retrying 1", "begun 2", "task.completed 2"]


async def test_an_attempt_that_others_have_ended_is_told_by_them_alone(make_bench: MakeBench) -> None:
    ear, begun, go_on = Ear(), asyncio.Event(), asyncio.Event()

    @subagent
    async def dawdle(ctx: TaskContext) -> None:
        begun.set()
        await go_on.wait()

    bench = make_bench(dawdle, tracing=ear)
    queued = await bench.dispatch(dawdle)
    running = asyncio.create_task(bench.runner.run(queued.id))
    await begun.wait()
    task = await bench.record(queued)
    assert await bench.hermes.journal.end(task, decide(task, Lost()))
    go_on.set()
    await running
    assert ear.heard == ["sent 1", "begun 1", "task.attempt_lost 1", "lost 1"]


def test_a_derived_id_is_the_same_in_every_process() -> None:
    assert span_id("t07-4k9", 1, Part.PROCESS) == "9487cd9f53c39bf7"


def test_each_part_of_each_attempt_has_its_own_id() -> None:
    ids = {span_id("t07-4k9", attempt, part) for attempt in range(3) for part in Part}
    assert len(ids) == 3 * len(Part)


def test_a_task_that_nobody_traces_is_in_the_trace_of_its_parent() -> None:
    context = made_up("t07-4k9", "ab" * 16)
    assert (context.trace_id, context.span_id) == ("ab" * 16, span_id("t07-4k9", 0, Part.SEND))
    assert TraceContext.read(context.traceparent) == context


@pytest.mark.parametrize(
    "text", ["", "00-1-2-01", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'g' * 32}-{'1' * 16}-01"]
)
def test_what_is_no_trace_context_is_refused(text: str) -> None:
    assert TraceContext.read(text) is None
