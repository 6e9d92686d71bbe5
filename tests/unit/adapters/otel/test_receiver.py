"""The receiver over real HTTP: what the SDK sends, and what no SDK would."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import aiohttp
import anyio.to_thread
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from hermes_async.adapters.otel import receiver
from hermes_async.adapters.otel.receiver import listening, receiving
from hermes_async.domain.spans import Span

pytestmark = pytest.mark.anyio


class Heard(list[Span]):
    address = ""


@pytest.fixture
async def heard(anyio_backend: str) -> AsyncIterator[Heard]:
    found = Heard()
    async with receiving(found.extend, listening()) as found.address:
        yield found


def send(address: str, compression: Compression) -> None:
    exporter = OTLPSpanExporter(f"{address}/v1/traces", compression=compression)
    provider = TracerProvider(resource=Resource({"service.name": "chat"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    said = {"n": 1, "many": ["a", "b"]}
    with (
        tracer.start_as_current_span("outer", kind=SpanKind.CLIENT, attributes=said),
        tracer.start_as_current_span("inner") as inner,
    ):
        inner.set_status(Status(StatusCode.ERROR, "no ❄"))
    provider.shutdown()


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
async def test_spans_that_the_sdk_sends(heard: Heard, compression: Compression) -> None:
    await anyio.to_thread.run_sync(send, heard.address, compression)
    inner, outer = heard
    assert (inner.name, inner.error, inner.parent_id) == ("inner", "no ❄", outer.span_id)
    assert (outer.kind, outer.service, outer.error, outer.parent_id) == ("client", "chat", None, None)
    assert outer.attributes["n"] == 1
    assert inner.trace_id == outer.trace_id
    assert outer.start <= inner.start <= inner.end <= outer.end


@pytest.mark.parametrize(
    ("body", "kind", "packing", "status"),
    [
        (b"{}", "application/json", "", 415),
        (b"\xff\xff", "application/x-protobuf", "", 400),
        (b"no gzip", "application/x-protobuf", "gzip", 400),
        (gzip.compress(b"\0" * 2_000_000), "application/x-protobuf", "gzip", 413),
    ],
)
async def test_what_is_no_spans_is_refused(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, body: bytes, kind: str, packing: str, status: int
) -> None:
    monkeypatch.setattr(receiver, "LARGEST", 1_000_000)
    headers = {"content-type": kind} | ({"content-encoding": packing} if packing else {})
    async with (
        receiving(heard.extend, listening()) as address,
        aiohttp.ClientSession() as client,
        client.post(f"{address}/v1/traces", data=body, headers=headers) as answer,
    ):
        assert answer.status == status
    assert heard == []


async def test_a_kind_that_no_version_knows_is_internal(heard: Heard) -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for kind in (-100, -1, 3, 99):
        spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, kind=kind)
    headers = {"content-type": "application/x-protobuf"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(
            f"{heard.address}/v1/traces", data=request.SerializeToString(), headers=headers
        ) as answer,
    ):
        assert answer.status == 200
    assert [span.kind for span in heard] == ["internal", "internal", "client", "internal"]


async def test_metrics_and_logs_are_taken_and_dropped(heard: Heard) -> None:
    for what in ("metrics", "logs"):
        for packing, status in (({}, 200), ({"content-encoding": "gzip"}, 400)):
            async with (
                aiohttp.ClientSession() as client,
                client.post(f"{heard.address}/v1/{what}", data=b"no gzip", headers=packing) as answer,
            ):
                assert answer.status == status


async def test_only_this_machine_can_send(heard: Heard) -> None:
    assert heard.address.startswith("http://127.0.0.1:")
