"""Spans of model and tool calls: pydantic-ai's own, without any content, below the span of our agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from opentelemetry import trace
from opentelemetry.trace import Span, Tracer, TracerProvider
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings

from hermes_async.adapters.otel import names
from hermes_async.core.present import present


def model_spans() -> Sequence[Instrumentation]:
    """Return what makes an agent of pydantic-ai write spans: nothing, unless somebody has set a provider."""
    settings = request_spans()
    return (Instrumentation(settings),) if settings else ()


def request_spans() -> InstrumentationSettings | Literal[False]:
    """Return what makes a single request to a model write a span: nothing, unless there is a provider."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return False
    return InstrumentationSettings(
        tracer_provider=_Below(provider),
        include_content=False,
        include_binary_content=False,
        include_model_request_parameters=False,
    )


class _Below(TracerProvider):
    """A provider whose tracers take the agent's span, which is there already, for the one of its run."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """Return such a tracer."""
        return _Tracer(self._provider.get_tracer(*args, **kwargs))


class _Tracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
        """Start a span."""
        return self._tracer.start_span(name, *args, **kwargs)

    @contextmanager
    def start_as_current_span(self, name: str, *args: Any, **kwargs: Any) -> Iterator[Span]:  # type: ignore[override]
        """Start a span and let it be the current one; within an attempt, that of the agent is it already.

        That one has the id that is known wherever it may have to be written again.
        """
        if name.startswith(names.INVOKE_AGENT) and present() is not None:
            yield trace.NonRecordingSpan(trace.get_current_span().get_span_context())
            return
        with self._tracer.start_as_current_span(name, *args, **kwargs) as span:
            yield span
