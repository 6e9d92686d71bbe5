"""OpenTelemetry: spans of a task's way, over the API alone; where they go, `export.py` sees to."""

from hermes_async.adapters.otel.tracing import OtelTracing

__all__ = ["OtelTracing"]
