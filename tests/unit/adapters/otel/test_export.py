"""Where spans go when the standard variables say so: bounded, per process, seldom complaining."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from hermes_async.adapters.otel import export
from hermes_async.adapters.otel.export import PerProcess, Seldom
from hermes_async.core.present import Presence
from hermes_async.settings import Settings
from tests.support.values import make_task


class Exporter(SpanExporter):
    """Notes what it exports, and in which process; or hangs."""

    def __init__(self, hangs: bool = False) -> None:
        self.exported: list[str] = []
        self.go_on = threading.Event()
        if not hangs:
            self.go_on.set()

    def export(self, spans: object) -> SpanExportResult:
        self.go_on.wait(30)
        self.exported += [f"{span.name} {os.getpid()}" for span in spans]  # type: ignore[attr-defined]
        return SpanExportResult.SUCCESS


def provider_of(processor: PerProcess) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def test_a_collector_that_hangs_holds_up_the_end_of_a_process_once_and_not_for_long() -> None:
    exporter = Exporter(hangs=True)
    processor = PerProcess(lambda: BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    provider_of(processor).get_tracer("test").start_span("x").end()
    began = time.monotonic()
    assert not processor.force_flush(200)
    assert time.monotonic() - began < 2
    began = time.monotonic()
    assert not processor.force_flush(30_000)
    assert time.monotonic() - began < 1
    exporter.go_on.set()


def test_a_forked_child_sends_its_own_spans_with_threads_of_its_own() -> None:
    exporter = Exporter()
    processor = PerProcess(lambda: BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    tracer = provider_of(processor).get_tracer("test")
    tracer.start_span("parent").end()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        tracer.start_span("child").end()
        processor.force_flush()
        os.write(writes, "|".join(exporter.exported).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reads, 1_000).decode() == f"child {child}"
    processor.force_flush()
    assert exporter.exported == [f"parent {os.getpid()}"]
    os.close(reads)
    os.close(writes)


def test_every_span_inside_an_attempt_says_so() -> None:
    processor = PerProcess(lambda: BatchSpanProcessor(Exporter()))
    tracer = provider_of(processor).get_tracer("test")
    task = make_task(attempt=2)
    with Presence(task):
        inside = tracer.start_span("x")
    assert inside.attributes == {"hermes.task.id": task.id, "hermes.task.attempt": 2}  # type: ignore[attr-defined]
    assert tracer.start_span("x").attributes == {}  # type: ignore[attr-defined]


def test_an_exporter_complains_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(export.time, "monotonic", lambda: clock[0])
    seldom, record = Seldom(), logging.makeLogRecord({"msg": "away"})
    assert [seldom.filter(record) for _ in range(3)] == [True, False, False]
    clock[0] = export.COMPLAINTS
    assert seldom.filter(record)


@pytest.mark.parametrize(
    ("environ", "collects"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_spans_are_sent_when_a_standard_variable_says_where(environ: dict[str, str], collects: bool) -> None:
    assert Settings.read(environ=environ).collects is collects


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_the_console_exporter_and_the_name_of_a_service_are_as_the_variables_say() -> None:
    code = """
import os
from opentelemetry import trace
from hermes_async.adapters.otel.export import set_up
set_up(os.environ, "ours")
set_up(os.environ, "again")
trace.get_tracer("x").start_span("told").end()
trace.get_tracer_provider().flush_for_hermes()
"""
    said = run(code, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="theirs")
    assert said.returncode == 0, said.stderr
    assert '"name": "told"' in said.stdout
    assert '"service.name": "theirs"' in said.stdout
    assert said.stderr == ""


def test_an_exporter_that_is_not_installed_is_one_sentence() -> None:
    code = """
import os
from hermes_async.adapters.otel.export import set_up
from hermes_async.domain.errors import ConfigError
try:
    set_up(os.environ, "ours")
except ConfigError as error:
    print(error)
"""
    said = run(code, OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in said.stdout, said.stderr
