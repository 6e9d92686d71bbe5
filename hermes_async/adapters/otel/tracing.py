"""Tracing over OpenTelemetry's API, with whatever provider there is: ours or the user's."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, TracerProvider

from hermes_async.adapters.otel import names
from hermes_async.adapters.otel.ids import read_back, span_context
from hermes_async.adapters.otel.spans import Spans, failed, nanoseconds, settled, within
from hermes_async.core.tracing import Told, TraceContext, asked, made_up
from hermes_async.domain.agent import NAMESPACE
from hermes_async.domain.callback import Call
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import Task, TaskStatus

logger = logging.getLogger("hermes.tracing")

_NOTHING = nullcontext()


@dataclass(frozen=True)
class _Attempt:
    """The spans of an attempt under way."""

    process: Span
    agent: Span

    def end(self, task: Task, event: AnyEvent, moment: float) -> None:
        for span in (self.agent, self.process):
            settled(span, task, event)
            span.end(nanoseconds(moment))


#: Seconds between two looks for a provider, where there was none: the API reads the environment at each.
LOOK_EVERY: Final = 0.1


class OtelTracing:
    """Writes spans of tasks.

    Nothing is written while no provider is set: the API's own then does nothing, as this does.

    Args:
        system: what `messaging.system` is: the broker's kind.
        provider: whose tracer is used; by default that of the process, once there is one.
        namespace: begins the names of the queues.
    """

    def __init__(
        self, system: str = "redis", provider: TracerProvider | None = None, namespace: str = NAMESPACE
    ) -> None:
        self._system = system
        self._namespace = namespace
        self._provider = provider
        self._spans: Spans | None = None
        self._look_at = 0.0
        #: The attempts that run in this process, by task id and number.
        self._live: dict[tuple[str, int], _Attempt] = {}

    def context(self, task_id: str, trace_id: str | None) -> TraceContext:
        """Return the context of a new task: below the current span, if there is one."""
        here, spans = _here(), self._found()
        if spans is None or not hasattr(spans.tracer, "sampler"):
            return read_back(here) if here.is_valid else made_up(task_id, trace_id)
        if not here.is_valid and trace_id:
            return made_up(task_id, trace_id)
        chosen = f"{here.trace_id:032x}" if here.is_valid else secrets.token_hex(16)
        result = spans.samples(chosen, names.SCOPE, within(here) if here.is_valid else Context())
        flags = int(result.decision.is_sampled())
        state = (result.trace_state and result.trace_state.to_header()) or None
        return TraceContext(f"00-{chosen}-{secrets.token_hex(8)}-{flags:02x}", state)

    def turn(self, parent: str, session_id: str) -> AbstractContextManager[object]:
        """Write a span for a turn of a parent, and let it be the current one."""
        spans = self._found()
        return spans.turn(parent, session_id) if spans else _NOTHING

    def sending(self, tasks: Sequence[Task]) -> AbstractContextManager[None]:
        """Write a span for each task that is written within this, if its context asks for one."""
        spans = self._found()
        return self._sending(spans, tasks) if spans else _NOTHING

    @contextmanager
    def _sending(self, spans: Spans, tasks: Sequence[Task]) -> Iterator[None]:
        here, began, error = _here(), time.time(), None
        try:
            yield
        except Exception as raised:
            error = raised
            raise
        finally:
            with _harmless():
                self._sent(spans, tasks, here if here.is_valid else None, began, error)

    @staticmethod
    def _sent(
        spans: Spans, tasks: Sequence[Task], here: SpanContext | None, began: float, error: Exception | None
    ) -> None:
        for task in tasks:
            context = TraceContext(task.birth.traceparent)
            is_here = here is not None and context.span_id == f"{here.span_id:016x}"
            if spans.is_made_up(task) or is_here:
                continue
            span = spans.send(task, here, began)
            if error is not None:
                failed(span, ErrorInfo(type=type(error).__qualname__, message=str(error)))
            span.end()

    def attempt(self, task: Task) -> AbstractContextManager[None]:
        """Let the span of the agent be the current one."""
        spans = self._found()
        return self._attempt(spans, task) if spans else _NOTHING  # a generator is kept for as long as it runs

    @contextmanager
    def _attempt(self, spans: Spans, task: Task) -> Iterator[None]:
        token = None
        with _harmless():
            live = self._begun(spans, task)
            self._live[task.id, task.attempt] = live
            token = contexts.attach(trace.set_span_in_context(live.agent))
        try:
            yield
        finally:
            if token is not None:
                contexts.detach(token)

    def ended(self, task: Task, event: AnyEvent | None) -> None:
        """Write the spans of an attempt, and those that only then are sure to be written once."""
        live, spans = self._live.pop((task.id, task.attempt), None), self._found()
        if event is not None and spans is not None:  # else others write them, under the same ids
            with _harmless():
                self._end(spans, live, task, event)

    def _end(self, spans: Spans, live: _Attempt | None, task: Task, event: AnyEvent) -> None:
        now = time.time()
        if spans.is_made_up(task) and task.attempt <= 1:
            spans.send(task, spans.above(task), task.created_at).end(nanoseconds(task.created_at))
        waiting = spans.wait(task)
        if task.status is TaskStatus.QUEUED:  # it never began
            settled(waiting, task, event)
            waiting.end(nanoseconds(now))
            return
        began = task.started_at or now
        waiting.end(nanoseconds(began))
        (live or self._begun(spans, task)).end(task, event, max(now, began))

    @contextmanager
    def calling(self, call: Call) -> Iterator[Told]:
        """Write a span for a call, and let it be the current one."""
        spans = self._found()
        if spans is None:
            yield lambda error: None
            return
        span: Span = trace.INVALID_SPAN
        with _harmless():
            span = spans.call(call, time.time())
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield lambda error: failed(span, error) if error else None

    def headers(self) -> Mapping[str, str]:
        """Return the context of the current span, as W3C has it."""
        here = trace.get_current_span().get_span_context()
        if not here.is_valid:
            return {}
        context = read_back(here)
        state = {"tracestate": context.tracestate} if context.tracestate else {}
        return {"traceparent": context.traceparent, **state}

    def flush(self) -> None:
        """Send what is not sent yet, if the provider is one that this package has set up."""
        flush = getattr(trace.get_tracer_provider(), "flush_for_hermes", None)
        if flush is not None:
            flush()

    @staticmethod
    def _begun(spans: Spans, task: Task) -> _Attempt:
        process = spans.process(task)
        return _Attempt(process, spans.agent(task, process.get_span_context()))

    def _found(self) -> Spans | None:
        """Return what makes spans, once somebody has set a provider."""
        if self._spans is None:
            now = time.monotonic()
            if now < self._look_at:
                return None
            provider = self._provider or trace.get_tracer_provider()
            self._look_at = now + LOOK_EVERY
            if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                return None
            self._spans = Spans(provider.get_tracer(names.SCOPE), self._system, self._namespace)
        return self._spans


@contextmanager
def _harmless() -> Iterator[None]:
    """Within this, whatever a provider or its processors raise costs no task anything."""
    try:
        yield
    except Exception:
        logger.exception("a span could not be written")


def _here() -> SpanContext:
    """Return the place of the current span, or else that of the request that is served."""
    here, request = trace.get_current_span().get_span_context(), asked()
    return here if here.is_valid or request is None else span_context(request)
