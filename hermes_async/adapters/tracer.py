"""Whether and how a process traces; nothing of OpenTelemetry is imported for that."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Final

from hermes_async.core.tracing import UNTRACED, Tracing
from hermes_async.domain.agent import NAMESPACE

logger = logging.getLogger("hermes.tracing")

#: What a process has imported that has spans.
_API: Final = "opentelemetry.trace"


def tracing_here(system: str, *, collects: bool = False, namespace: str = NAMESPACE) -> Tracing:
    """Return what traces: nothing, unless somebody has OpenTelemetry here and wants it.

    A process in which the API is not imported has no provider and no span.

    Args:
        system: the kind of the broker, as OpenTelemetry calls it.
        collects: the standard variables say where spans go.
        namespace: begins the names of the queues.

    Raises:
        ConfigError: they name an exporter that is not installed.
    """
    if not collects and _API not in sys.modules:
        return UNTRACED
    try:
        otel = import_module("hermes_async.adapters.otel")
        if collects:
            import_module("hermes_async.adapters.otel.export").set_up(os.environ, "hermes-async")
    except ImportError:
        logger.warning("spans cannot be sent: OpenTelemetry is missing; pip install 'hermes_async[otel]'")
        return UNTRACED
    found: Tracing = otel.OtelTracing(system, namespace=namespace)
    return found
