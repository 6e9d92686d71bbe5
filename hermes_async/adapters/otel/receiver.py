"""A receiver of spans, OTLP over HTTP, on this machine: a collector for whoever develops."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from hermes_async.domain.spans import Span

#: Bytes of a request, as it comes and unpacked.
LARGEST: Final = 16_000_000
_PROTOBUF: Final = "application/x-protobuf"
#: OTLP's kinds of spans.
_KINDS: Final = ("internal", "internal", "server", "client", "producer", "consumer")
_ERROR: Final = 2
#: How long an attribute may be that is kept.
_LONGEST: Final = 2_000


@asynccontextmanager
async def receiving(
    on_spans: Callable[[Sequence[Span]], object], listener: socket.socket
) -> AsyncIterator[str]:
    """Receive spans, and yield the address for OTEL_EXPORTER_OTLP_ENDPOINT.

    Args:
        on_spans: is called with what came.
        listener: where; it is closed at the end.
    """

    async def traces(request: web.Request) -> web.Response:
        if request.content_type != _PROTOBUF:
            raise web.HTTPUnsupportedMediaType(text=f"only {_PROTOBUF} is understood here")
        try:
            on_spans(decoded(await _body(request)))
        except DecodeError:
            raise web.HTTPBadRequest(text="that is no ExportTraceServiceRequest") from None
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type=_PROTOBUF)

    async def unwanted(request: web.Request) -> web.Response:
        """Take metrics and logs, and drop them: who sends them too should not complain."""
        await _body(request)
        return web.Response(body=b"", content_type=_PROTOBUF)

    app = web.Application(client_max_size=LARGEST)
    app.router.add_post("/v1/traces", traces)
    app.router.add_post("/v1/metrics", unwanted)
    app.router.add_post("/v1/logs", unwanted)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield address(listener)
    finally:
        await runner.cleanup()


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="that cannot be unpacked") from None


def listening() -> socket.socket:
    """Return a socket on a free port, which only this machine reaches."""
    return socket.create_server(("127.0.0.1", 0))


def address(listener: socket.socket) -> str:
    """Return the address for OTEL_EXPORTER_OTLP_ENDPOINT."""
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def decoded(body: bytes) -> list[Span]:
    """Return the spans of a request; those without an id are dropped.

    Raises:
        DecodeError: it is none.
    """
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    return [
        _span(span, service)
        for resource in request.resource_spans
        for service in [str(_values(resource.resource.attributes).get("service.name", ""))]
        for scope in resource.scope_spans
        for span in scope.spans
        if span.trace_id and span.span_id
    ]


def _span(span: Any, service: str) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name[:_LONGEST],
        kind=_KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else _KINDS[0],
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        error=(span.status.message or "error")[:_LONGEST] if span.status.code == _ERROR else None,
        attributes=_values(span.attributes),
        service=service,
    )


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        found = getattr(value, kind)
        return found[:_LONGEST] if isinstance(found, str) else found
    return str(value)[:_LONGEST]
