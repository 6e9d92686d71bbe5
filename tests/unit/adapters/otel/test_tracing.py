"""Spans over providers of every kind: the SDK's, one that samples, one that is no SDK at all, and none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

from hermes_async.adapters.otel import OtelTracing
from hermes_async.core.tracing import made_up
from hermes_async.domain.callback import Call, Callback, CallbackKind
from hermes_async.domain.lifecycle import Lost, decide
from hermes_async.domain.spans import Part, span_id
from hermes_async.domain.task import Task
from hermes_async.domain.task import TaskStatus as S
from hermes_async.sdk import TaskContext, subagent
from tests.support.bench import Bench, MakeBench
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio


class Kept:
    """A provider of the SDK, and what it has written."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    @property
    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_while_nobody_traces_nothing_is_made_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    tracing, one, other = OtelTracing(), make_task(), make_task()
    assert tracing.attempt(one) is tracing.attempt(other)  # each is kept for as long as a task sleeps
    assert tracing.sending([one]) is tracing.turn("parent", "chat")
    assert tracing._live == {}


@subagent
async def work(ctx: TaskContext) -> str:
    """Say in which span it runs."""
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


@subagent
def work_in_thread(ctx: TaskContext) -> str:
    """Say in which span it runs."""
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


async def done(bench: Bench, agent: Any) -> Task:
    task = await bench.dispatch(agent)
    await bench.runner.run(task.id)
    return await bench.record(task)


def parents(kept: Kept) -> dict[str, str | None]:
    by_id = {span.context.span_id: span.name for span in kept.spans}
    return {span.name: span.parent and by_id.get(span.parent.span_id, "?") for span in kept.spans}


@pytest.mark.parametrize("agent", [work, work_in_thread])
async def test_an_agent_runs_within_its_span(make_bench: MakeBench, kept: Kept, agent: Any) -> None:
    bench = make_bench(agent, tracing=OtelTracing(provider=kept.provider))
    task = await done(bench, agent)
    assert task.output == span_id(task.id, 1, Part.AGENT)
    name = agent.name
    assert parents(kept) == {
        f"send {name}": None,
        f"wait {name}": f"send {name}",
        f"process {name}": f"send {name}",
        f"invoke_agent {name}": f"process {name}",
    }
    assert {f"{span.context.trace_id:032x}" for span in kept.spans} == {task.birth.trace_id}
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_task_is_below_the_span_in_which_it_is_dispatched(make_bench: MakeBench, kept: Kept) -> None:
    tracing = OtelTracing(provider=kept.provider)
    bench = make_bench(work, tracing=tracing)
    with kept.provider.get_tracer("chat").start_as_current_span("turn"):
        await done(bench, work)
    assert parents(kept)["send work"] == "turn"
    assert tracing._live == {}  # nothing is kept of what has ended


def test_the_path_of_a_webhook_is_a_secret(kept: Kept) -> None:
    task = make_task()
    row = Callback(
        id=f"{task.id}:webhook",
        kind=CallbackKind.WEBHOOK,
        name="https://me:word@hooks.example:8443/services/T0/secret?key=1",
        session_id=task.session_id,
        task_id=task.id,
        seq=1,
    )
    with OtelTracing(provider=kept.provider).calling(Call(row, task, 1)):
        pass
    assert (kept.named("webhook").attributes or {})["url.full"] == "https://hooks.example:8443"


async def test_a_batch_has_a_span_for_each(make_bench: MakeBench, kept: Kept) -> None:
    bench = make_bench(work, tracing=OtelTracing(provider=kept.provider))
    handles = await bench.session.dispatch_many(work, [{}] * 3)
    assert kept.names == ["send work"] * 3
    assert len({handle.trace_id for handle in handles}) == 3


async def test_a_dispatch_that_is_refused_is_an_error(make_bench: MakeBench, kept: Kept) -> None:
    bench = make_bench(work, tracing=OtelTracing(provider=kept.provider))
    bench.store.away = 1
    with pytest.raises(Exception, match="away"):
        await bench.session.dispatch(work)
    assert kept.named("send work").status.description == "StoreUnavailable: away"


async def test_whoever_notes_a_loss_writes_the_spans_that_the_lost_worker_had_begun(
    make_bench: MakeBench, kept: Kept
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @subagent
    async def dawdle(ctx: TaskContext) -> None:
        with kept.provider.get_tracer("own").start_as_current_span("step"):
            pass
        begun.set()
        await go_on.wait()

    bench = make_bench(dawdle, tracing=OtelTracing(provider=kept.provider))
    queued = await bench.dispatch(dawdle)
    running = asyncio.create_task(bench.runner.run(queued.id))
    await begun.wait()
    task = await bench.record(queued)
    janitor = OtelTracing(provider=kept.provider)  # of another process
    event = decide(task, Lost())
    assert await bench.store.append(event)
    janitor.ended(task, event)
    go_on.set()
    await running
    assert kept.names == sorted(
        ["send dawdle", "wait dawdle", "process dawdle", "invoke_agent dawdle", "step"]
    )
    assert parents(kept)["step"] == "invoke_agent dawdle"
    lost = kept.named("process dawdle")
    assert lost.status.description == "worker_lost: the attempt was lost"
    assert lost.attributes is not None
    assert lost.attributes["error.type"] == "worker_lost"


def test_a_task_that_nobody_traced_when_it_was_dispatched_has_a_dispatch_all_the_same(kept: Kept) -> None:
    parent = make_task(attempt=1, status=S.RUNNING, created_at=1.0, started_at=2.0)
    child = make_task(parent_task_id=parent.id, parent_attempt=1, agent="child", created_at=3.0)
    context = made_up(child.id, parent.birth.trace_id)
    birth = child.birth.model_copy(update={"traceparent": context.traceparent})
    child = child.model_copy(update={"birth": birth, "attempt": 1, "status": S.RUNNING, "started_at": 4.0})
    tracing = OtelTracing(provider=kept.provider)
    tracing.ended(parent, make_event(parent, "task.completed"))
    tracing.ended(child, make_event(child, "task.completed"))
    assert parents(kept) == {
        "wait echo": "?",  # `make_task` has a parent of its own
        "process echo": "?",
        "invoke_agent echo": "process echo",
        "send child": "invoke_agent echo",
        "wait child": "send child",
        "process child": "send child",
        "invoke_agent child": "process child",
    }


def test_a_task_that_expires_in_the_queue_has_a_wait_that_failed(kept: Kept) -> None:
    task = make_task(created_at=1.0)
    OtelTracing(provider=kept.provider).ended(task, make_event(task, "task.failed"))
    (waited,) = kept.spans
    assert waited.name == "wait echo"
    assert not waited.status.is_ok


@pytest.mark.parametrize("untraced_caller", [False, True])
async def test_what_is_not_sampled_is_written_nowhere(make_bench: MakeBench, untraced_caller: bool) -> None:
    off = Kept(sampler=ParentBased(ALWAYS_OFF))
    bench = make_bench(work, tracing=OtelTracing(provider=off.provider))
    if untraced_caller:
        task = await make_bench(work).dispatch(work)
        OtelTracing(provider=off.provider).ended(task, make_event(task, "task.failed"))
    else:
        await done(bench, work)
    assert off.names == []


def test_all_processes_sample_the_same_traces_whoever_began_them() -> None:
    half = Kept(sampler=ParentBased(TraceIdRatioBased(0.5)))
    for _ in range(40):
        task = make_task(created_at=1.0, attempt=1, status=S.RUNNING, started_at=2.0)
        birth = task.birth.model_copy(update={"traceparent": made_up(task.id).traceparent})
        task = task.model_copy(update={"birth": birth})
        OtelTracing(provider=half.provider).ended(task, make_event(task, "task.completed"))
    by_trace: dict[int, int] = {}
    for span in half.spans:
        by_trace[span.context.trace_id] = by_trace.get(span.context.trace_id, 0) + 1
    assert 0 < len(by_trace) < 40
    assert set(by_trace.values()) == {4}


class Broken(SpanProcessor):
    """One that a user has written on a bad day."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("no start")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("no end")


async def test_a_provider_that_raises_costs_a_task_nothing(
    make_bench: MakeBench, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.provider.add_span_processor(Broken())
    bench = make_bench(work, tracing=OtelTracing(provider=kept.provider))
    assert (await done(bench, work)).status is S.COMPLETED
    assert "a span could not be written" in caplog.text


class Foreign(trace.TracerProvider):
    """A provider that is not the SDK's: its tracers number spans as they like, and nobody can ask them."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        inner = self._kept.provider.get_tracer(*args, **kwargs)

        class Tracer(trace.Tracer):
            def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
                return inner.start_span(*args, **kwargs)

            def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
                return inner.start_as_current_span(*args, **kwargs)

        return Tracer()


async def test_a_provider_that_is_not_the_sdks_has_one_trace_too(make_bench: MakeBench, kept: Kept) -> None:
    bench = make_bench(work, tracing=OtelTracing(provider=Foreign(kept)))
    with kept.provider.get_tracer("chat").start_as_current_span("turn"):
        await done(bench, work)
    assert parents(kept) == {
        "turn": None,
        "wait work": "turn",
        "process work": "turn",
        "invoke_agent work": "process work",
    }


async def test_without_a_provider_nothing_is_written_and_the_current_context_goes_on(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(work, tracing=OtelTracing())
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    task = await done(bench, work)
    assert task.output == "0" * 16
    assert task.birth.traceparent == made_up(task.id, task.birth.trace_id).traceparent
    here = trace.SpanContext(int("a" * 32, 16), int("b" * 16, 16), True, trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(here)):
        task = await bench.dispatch(work)
    assert task.birth.traceparent == f"00-{'a' * 32}-{'b' * 16}-01"


async def test_the_state_of_other_tracing_systems_is_kept_in_the_record(
    make_bench: MakeBench, kept: Kept
) -> None:
    bench = make_bench(work, tracing=OtelTracing(provider=kept.provider))
    state = trace.TraceState([("vendor", "x")])
    here = trace.SpanContext(int("a" * 32, 16), int("b" * 16, 16), True, trace.TraceFlags(1), state)
    with trace.use_span(trace.NonRecordingSpan(here)):
        task = await done(bench, work)
    assert task.birth.tracestate == "vendor=x"
    assert kept.named("process work").context.trace_state == state


@pytest.fixture(autouse=True)
def _no_provider() -> Iterator[None]:
    yield
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "a test has set one for all"
