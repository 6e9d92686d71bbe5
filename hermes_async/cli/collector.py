"""What `up --trace` adds: it receives the spans of its processes, keeps them, and draws ended tasks."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
import click
from anyio.abc import TaskStatus

from hermes_async.adapters.trace_files import TraceFiles
from hermes_async.cli import waterfall
from hermes_async.cli.supervisor import ChildSpec
from hermes_async.cli.words import line
from hermes_async.domain.errors import UserError
from hermes_async.domain.spans import ATTEMPT, DEPTH, STATUS, TASK_ID, Span, stretches

#: Traces whose spans are in memory, too, and spans of each.
KEPT: Final = 200
MOST: Final = 5_000
#: Seconds without a span of its trace after which an ended task is drawn, and seconds between two looks.
QUIET: Final = 1.6
_LOOK_EVERY: Final = 0.4
#: Milliseconds between two exports of a child.
_DELAY: Final = "500"


class Collector:
    """Receives spans on this machine.

    Args:
        folder: where they are kept.
        say: prints a line.

    Raises:
        UserError: the extra `otel` is not installed.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        try:
            self._otel: Any = import_module("hermes_async.adapters.otel.receiver")
            import_module("hermes_async.adapters.otel.export")
        except ImportError:
            raise UserError("--trace needs OpenTelemetry: pip install 'hermes_async[otel]'") from None
        self._files = TraceFiles(folder)
        self._say = say
        self._listener = self._otel.listening()
        self.address: str = self._otel.address(self._listener)
        self._spans: OrderedDict[str, list[Span]] = OrderedDict()
        #: The last spans of tasks that have ended and are not drawn yet, and when their traces last moved.
        self._ended: dict[str, Span] = {}
        self._moved: dict[str, float] = {}
        self._keeps = True

    def traced(self, spec: ChildSpec) -> ChildSpec:
        """Return a child that sends its spans here."""
        direct = ",".join(filter(None, (_not_by_proxy(), "127.0.0.1")))
        env = {
            "NO_PROXY": direct,
            "no_proxy": direct,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.address,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{self.address}/v1/traces",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_SDK_DISABLED": "false",
            "OTEL_SERVICE_NAME": spec.name,
            "OTEL_BSP_SCHEDULE_DELAY": _DELAY,
        }
        return replace(spec, env={**spec.env, **env})

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Receive until cancelled."""
        async with self._otel.receiving(self.take, self._listener):
            task_status.started()
            while True:
                await anyio.sleep(_LOOK_EVERY)
                self.draw_quiet(time.monotonic())

    def take(self, spans: Sequence[Span]) -> None:
        """Keep spans; note which tasks have ended."""
        self._keep(spans)
        for span in spans:
            known = self._spans.setdefault(span.trace_id, [])
            if len(known) < MOST:
                known.append(_slim(span))
            self._spans.move_to_end(span.trace_id)
            self._moved[span.trace_id] = time.monotonic()
            if span.task_id and STATUS in span.attributes and span.attributes.get(DEPTH) == 0:
                self._ended[span.task_id] = span
        while len(self._spans) > KEPT:
            trace_id, _ = self._spans.popitem(last=False)
            del self._moved[trace_id]

    def _keep(self, spans: Sequence[Span]) -> None:
        try:
            self._files.add(spans)
        except OSError as error:  # the disk is full, say: what runs here goes on
            if self._keeps:
                self._say(f"spans cannot be kept: {error}")
            self._keeps = False
        else:
            self._keeps = True

    def draw_quiet(self, now: float) -> None:
        """Draw the ended tasks of whose traces nothing more comes."""
        for task_id, last in list(self._ended.items()):
            if now - self._moved.get(last.trace_id, 0.0) >= QUIET:
                del self._ended[task_id]
                self._draw(task_id, last)

    def _draw(self, task_id: str, last: Span) -> None:
        rows = stretches(self._spans.get(last.trace_id, []), task_id)
        title = line(f"task {task_id} {last.attributes[STATUS]}, trace {last.trace_id}")
        self._say(click.style(title, bold=True))
        for row in waterfall.drawn(rows, time.time()):
            self._say(f"  {row}")


def _not_by_proxy() -> str:
    """Return which hosts are asked without the proxy that the environment names."""
    return os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")


def _slim(span: Span) -> Span:
    """Return a span with no more than what is drawn of it."""
    said = {name: value for name, value in span.attributes.items() if name in (TASK_ID, ATTEMPT)}
    return span.model_copy(update={"attributes": said})
