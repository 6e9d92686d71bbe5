"""Where spans go when nobody else has said so: a provider as the standard variables of OpenTelemetry ask for.

This is the only module that needs the SDK.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from hermes_async.core.present import present
from hermes_async.domain.errors import ConfigError
from hermes_async.domain.spans import ATTEMPT, TASK_ID

#: Milliseconds between two exports, and spans that wait for one: what a killed process takes along is little.
DELAY, QUEUE = 1_000, 8_192
#: Seconds that the end of a process may take longer because of spans.
PATIENCE: Final = 1.5
#: Seconds between two complaints of an exporter.
COMPLAINTS: Final = 60.0
#: What a first request imports.
_LATE: Final = ("encodings.idna", "netrc")
#: The loggers of exporters, which complain of every single try.
_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk._shared_internal",
)


#: The loops of a process may open a Hermes at the same time.
_setting_up = threading.Lock()


class HermesProvider(TracerProvider):
    """The provider of a process of ours."""

    def flush_for_hermes(self) -> None:
        """Send what is not sent yet, within `PATIENCE`."""
        self.force_flush(int(PATIENCE * 1000))


def set_up(environ: Mapping[str, str], service: str) -> None:
    """Set a provider, unless one is set already.

    Args:
        environ: the standard variables say where spans go, and which are sampled.
        service: `service.name`, unless a variable says it.

    Raises:
        ConfigError: no exporter of the name that OTEL_TRACES_EXPORTER gives is installed.
    """
    with _setting_up:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(_provider(environ, service))


def _provider(environ: Mapping[str, str], service: str) -> HermesProvider:
    exporter = _exporter(environ)
    own = {SERVICE_INSTANCE_ID: f"{socket.gethostname()}:{os.getpid()}"}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        own[SERVICE_NAME] = service
    # Its own end of process waits for 30 s.
    provider = HermesProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(PerProcess(lambda: _batches(exporter(), environ)))
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(Seldom())
    return provider


def _exporter(environ: Mapping[str, str]) -> Callable[[], SpanExporter]:
    """Return what makes the exporter that the variables name.

    One is made at once, and dropped: what it imports must be there before a process forks, because a fork in
    the middle of an import leaves the child with locks that nobody gives back.
    """
    name = environ.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL"
        )
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise ConfigError(
            f"spans cannot be sent: no exporter {name!r} is installed; is it `pip install {package}`?"
        )
    make: Callable[[], SpanExporter] = found[0].load()
    make().shutdown()
    for module in _LATE:
        import_module(module)
    return make


def _batches(exporter: SpanExporter, environ: Mapping[str, str]) -> BatchSpanProcessor:
    return BatchSpanProcessor(
        exporter,
        max_queue_size=None if environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else QUEUE,
        schedule_delay_millis=None if environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY,
    )


class PerProcess(SpanProcessor):
    """Hands spans to an exporter of this very process: threads and sockets do not survive a fork.

    Args:
        make: makes the processor of a process, when it has its first span.
    """

    def __init__(self, make: Callable[[], BatchSpanProcessor]) -> None:
        self._make = make
        #: By process id; a forked child keeps its parent's and leaves it alone.
        self._of: dict[int, BatchSpanProcessor] = {}
        #: Somebody who was waited for in vain is waited for no more.
        self._is_away = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Say of every span to which attempt it belongs: its parent may be lost with its process."""
        task = present()
        if task is not None and TASK_ID not in (span.attributes or {}):
            span.set_attributes({TASK_ID: task.id, ATTEMPT: task.attempt})

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span; one too many is dropped."""
        here = self._of.get(os.getpid())
        if here is None:
            here = self._of.setdefault(os.getpid(), self._make())
        here.on_end(span)

    def force_flush(self, timeout_millis: int = 1_500) -> bool:
        """Send what waits; a collector that does not answer is given up after that time."""
        here = self._of.get(os.getpid())
        if here is None or self._is_away:
            return not self._is_away
        sending = threading.Thread(target=here.force_flush, name="hermes-spans", daemon=True)
        sending.start()
        sending.join(timeout_millis / 1000)
        self._is_away = sending.is_alive()
        return not self._is_away

    def shutdown(self) -> None:
        """Send what waits."""
        self.force_flush()


class Seldom(logging.Filter):
    """Lets a logger complain once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + COMPLAINTS
        return True
