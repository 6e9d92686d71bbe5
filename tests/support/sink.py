"""What has received spans over real HTTP, for tests that look at whole traces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hermes_async.adapters.otel.receiver import listening, receiving
from hermes_async.domain.spans import Span
from tests.support.servers import wait_until_async


class Sink:
    """The spans that came, and how they hang together."""

    def __init__(self) -> None:
        self.address = ""
        self._spans: dict[str, Span] = {}
        #: How often each came.
        self.times: dict[str, int] = {}

    def take(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self._spans[span.span_id] = span
            self.times[span.span_id] = self.times.get(span.span_id, 0) + 1

    @property
    def env(self) -> dict[str, str]:
        """What makes a process send its spans here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.address, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in self._spans.values() if span.trace_id == trace_id]

    async def until(self, trace_id: str, *names: str, when: Callable[[], bool] = lambda: True) -> list[Span]:
        """The spans of a trace, once there are those."""

        def there() -> bool:
            found = [span.name for span in self.of(trace_id)]
            return when() and all(found.count(name) >= names.count(name) for name in names)

        try:
            await wait_until_async(there, 20.0)
        except BaseException:
            print("\n".join(paths(self.of(trace_id))))
            raise
        return self.of(trace_id)


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    found = Sink()
    async with receiving(found.take, listening()) as found.address:
        yield found


def paths(spans: Sequence[Span]) -> list[str]:
    """Each span as the names from the root down to it; `?` stands for a parent that never came."""
    known = {span.span_id: span for span in spans}

    def path(span: Span) -> str:
        if span.parent_id is None:
            return span.name
        parent = known.get(span.parent_id)
        return f"{path(parent) if parent else '?'} > {span.name}"

    return sorted(map(path, spans))


def named(spans: Sequence[Span], name: str) -> list[Span]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.start)


def attributes(span: Span) -> dict[str, Any]:
    return dict(span.attributes)
