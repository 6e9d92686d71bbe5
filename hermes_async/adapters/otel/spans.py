"""The spans of one task: which there are, below which others, and what they say."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from hermes_async.adapters.otel import names
from hermes_async.adapters.otel.ids import chosen, span_context, teach
from hermes_async.core.tracing import TraceContext
from hermes_async.domain.callback import Call, CallbackKind, public_name
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.domain.spans import ATTEMPT, DEPTH, STATUS, TASK_ID, Part, span_id
from hermes_async.domain.task import Task, TaskStatus

#: Characters of an error's message.
_LONGEST: Final = 500
#: Ends that are nobody's fault.
_GOOD: Final = frozenset({"task.completed", "task.cancelled"})


class Spans:
    """Starts the spans of tasks.

    Args:
        tracer: of ours alone: it learns to take chosen ids, if it is the SDK's.
        system: what `messaging.system` is.
        namespace: begins the names of the queues.
    """

    def __init__(self, tracer: Tracer, system: str, namespace: str) -> None:
        self.tracer = tracer
        self._system = system
        self._namespace = namespace
        self._takes_ids = teach(tracer)

    def samples(self, trace_id: str, name: str, context: Context | None = None) -> Any:
        """Return what the provider's sampler says of a new span; None: it has none that could be asked."""
        sampler = getattr(self.tracer, "sampler", None)
        if sampler is None:
            return None
        return sampler.should_sample(context, int(trace_id, 16), name, SpanKind.PRODUCER)

    def turn(self, parent: str, session_id: str) -> AbstractContextManager[Span]:
        """Start the span of a parent's turn, as the current one."""
        said = {
            names.AI_OPERATION: names.INVOKE_AGENT,
            names.AI_AGENT: parent,
            names.AI_CONVERSATION: session_id,
            names.SESSION_ID: session_id,
        }
        return self.tracer.start_as_current_span(names.invoke(parent), attributes=said)

    def send(self, task: Task, parent: SpanContext | None, start: float) -> Span:
        """Start the span of a dispatch, which has the id that the record names."""
        context = _context(task)
        said = {names.OPERATION: "send", **self._messaging(task), **_of(task)}
        return self._start(
            names.send(task.agent), SpanKind.PRODUCER, parent, start, said, context.span_id, context
        )

    def wait(self, task: Task) -> Span:
        """Start the span of the time in the queue before the present attempt, or before any."""
        attempt = task.attempt + (task.status is TaskStatus.QUEUED)
        start = task.created_at if task.queued_at is None or attempt <= 1 else task.queued_at
        return self._start(
            *(names.wait(task.agent), SpanKind.INTERNAL, self.dispatch(task), start),
            {**_of(task), ATTEMPT: attempt},
            span_id(task.id, attempt, Part.WAIT),
            _context(task),
        )

    def process(self, task: Task) -> Span:
        """Start the span of an attempt."""
        start = task.started_at or task.created_at
        waited = start - (task.queued_at or task.created_at)
        said = {
            names.OPERATION: "process",
            names.WAITED_MS: round(max(0.0, waited) * 1000),
            names.CLIENT_ID: task.worker or "",
        }
        return self._start(
            *(names.process(task.agent), SpanKind.CONSUMER, self.dispatch(task), start),
            {**said, **self._messaging(task), **_of(task), ATTEMPT: task.attempt},
            span_id(task.id, task.attempt, Part.PROCESS),
            _context(task),
        )

    def agent(self, task: Task, parent: SpanContext) -> Span:
        """Start the span of an agent at work."""
        said = {
            names.AI_OPERATION: names.INVOKE_AGENT,
            names.AI_AGENT: task.agent,
            names.AI_CONVERSATION: task.session_id,
        }
        return self._start(
            *(names.invoke(task.agent), SpanKind.INTERNAL, parent, task.started_at or task.created_at),
            {**said, **_of(task), ATTEMPT: task.attempt},
            span_id(task.id, task.attempt, Part.AGENT),
            _context(task),
        )

    def call(self, call: Call, start: float) -> Span:
        """Start the span of a callback or webhook, below the attempt of which it tells."""
        row, task = call.callback, call.task
        is_webhook = row.kind is CallbackKind.WEBHOOK
        kind = SpanKind.CLIENT if is_webhook else SpanKind.CONSUMER
        said = {names.CALLBACK_ID: row.id, names.CALLBACK_KIND: row.kind.value, ATTEMPT: task.attempt}
        if is_webhook:
            said |= {names.URL: public_name(row), names.METHOD: "POST"}
        return self._start(
            names.WEBHOOK if is_webhook else names.callback(row.name),
            kind,
            self.attempt(task),
            start,
            {**said, **_of(task)},
        )

    def dispatch(self, task: Task) -> SpanContext:
        """Return the place of a task's dispatch."""
        context = _context(task)
        made = self.is_made_up(task)
        result = self.samples(context.trace_id, names.send(task.agent)) if made else None
        return span_context(context, sampled=None if result is None else result.decision.is_sampled())

    def attempt(self, task: Task) -> SpanContext:
        """Return the place of a task's present attempt, or of its dispatch if there is none."""
        at = self.dispatch(task)
        if not task.attempt or not self._takes_ids:
            return at
        own = int(span_id(task.id, task.attempt, Part.PROCESS), 16)
        return SpanContext(
            at.trace_id, own, is_remote=True, trace_flags=at.trace_flags, trace_state=at.trace_state
        )

    @staticmethod
    def is_made_up(task: Task) -> bool:
        """Tell whether nobody has traced the dispatch of a task."""
        return _context(task).span_id == span_id(task.id, 0, Part.SEND)

    def above(self, task: Task) -> SpanContext | None:
        """Return the place of what has dispatched a task whose dispatch nobody has traced."""
        birth = task.birth
        if birth.parent_task_id is None:
            return None
        agent = span_id(birth.parent_task_id, birth.parent_attempt, Part.AGENT)
        return span_context(_context(task), span_id=agent)

    def _start(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        start: float,
        attributes: dict[str, Any],
        id_: str = "",
        context: TraceContext | None = None,
    ) -> Span:
        place = within(parent)
        options: dict[str, Any] = {"kind": kind, "attributes": attributes, "start_time": nanoseconds(start)}
        if context is None or not self._takes_ids:
            return self.tracer.start_span(name, place, **options)
        with chosen(context.trace_id, id_):
            return self.tracer.start_span(name, place, **options)

    def _messaging(self, task: Task) -> dict[str, str]:
        return {
            names.SYSTEM: self._system,
            names.DESTINATION: f"{self._namespace}.{task.lane}",
            names.MESSAGE_ID: task.id,
            names.CONVERSATION: task.session_id,
        }


def settled(span: Span, task: Task, event: AnyEvent) -> None:
    """Note on a span what an event says of the end of an attempt."""
    status = event.type.removeprefix("task.")
    if event.type in TERMINAL_TYPES:
        span.set_attribute(STATUS, status)
    error = getattr(event.data, "error", None)
    if error is not None:
        failed(span, error)
    elif event.type not in _GOOD:  # it was lost
        cause = str(getattr(event.data, "cause", status))
        failed(span, ErrorInfo(type=cause, message="the attempt was lost"))
    if reason := getattr(event.data, "reason", None):
        span.set_attribute(names.REASON, str(reason))
    usage = getattr(event.data, "usage", None)
    if usage is not None:
        span.set_attribute(names.AI_INPUT_TOKENS, usage.input_tokens)
        span.set_attribute(names.AI_OUTPUT_TOKENS, usage.output_tokens)


def failed(span: Span, error: ErrorInfo) -> None:
    """Note an error on a span."""
    span.set_attribute(names.ERROR_TYPE, error.type)
    span.set_status(Status(StatusCode.ERROR, f"{error.type}: {error.message}"[:_LONGEST]))


def nanoseconds(moment: float) -> int:
    """Return a moment in Unix seconds as OpenTelemetry counts."""
    return int(moment * 1e9)


def within(parent: SpanContext | None) -> Context:
    """Return a context in which a span is the current one, and nothing else is."""
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()) if parent else Context()


def _context(task: Task) -> TraceContext:
    return TraceContext(task.birth.traceparent, task.birth.tracestate)


def _of(task: Task) -> dict[str, str | int]:
    birth = task.birth
    said: dict[str, str | int] = {
        TASK_ID: task.id,
        names.SESSION_ID: task.session_id,
        DEPTH: birth.depth,
    }
    if birth.parent_task_id:
        said |= {names.PARENT_TASK_ID: birth.parent_task_id, names.ROOT_TASK_ID: birth.root_task_id or ""}
    return said
