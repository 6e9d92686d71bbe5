"""Spans with ids that were chosen: for those that several processes must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry.trace import SpanContext, TraceFlags, Tracer, TraceState

from hermes_async.core.tracing import TraceContext

#: The trace id and span id of the next span that is started here.
_chosen: ContextVar[tuple[int, int] | None] = ContextVar("hermes_span_ids", default=None)


class ChosenIds:
    """An id generator that gives what was chosen, and else what another one gives.

    Args:
        others: that of the tracer's provider.
    """

    def __init__(self, others: Any) -> None:
        self._others = others

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        ids = _chosen.get()
        return ids[0] if ids else int(self._others.generate_trace_id())

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        ids = _chosen.get()
        return ids[1] if ids else int(self._others.generate_span_id())

    def is_trace_id_random(self) -> bool:
        """Return whether the ids of traces are as random as W3C wants them."""
        return bool(self._others.is_trace_id_random())


def teach(tracer: Tracer) -> bool:
    """Let a tracer of ours take chosen ids; False: it is not the SDK's, and numbers its spans as it likes."""
    others = getattr(tracer, "id_generator", None)
    if others is not None and not isinstance(others, ChosenIds):
        tracer.id_generator = ChosenIds(others)  # type: ignore[attr-defined]
    return others is not None


@contextmanager
def chosen(trace_id: str, span_id: str) -> Iterator[None]:
    """Within this, the span that is started has these ids."""
    token = _chosen.set((int(trace_id, 16), int(span_id, 16)))
    try:
        yield
    finally:
        _chosen.reset(token)


def span_context(context: TraceContext, *, span_id: str = "", sampled: bool | None = None) -> SpanContext:
    """Return a place in a trace as OpenTelemetry knows it.

    Args:
        context: a record's.
        span_id: another span of the same trace.
        sampled: whether the trace is recorded; by default as the context says.
    """
    flags = TraceFlags(int(context.traceparent[53:55], 16) if sampled is None else sampled)
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    return SpanContext(
        int(context.trace_id, 16),
        int(span_id or context.span_id, 16),
        is_remote=True,
        trace_flags=flags,
        trace_state=state,
    )


def read_back(context: SpanContext) -> TraceContext:
    """Return a place in a trace as a record keeps it."""
    state = context.trace_state.to_header() or None
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
    return TraceContext(parent, state)
