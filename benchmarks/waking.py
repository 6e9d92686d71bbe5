"""How soon a parent has an end in its hands, while a thousand tasks end for it within one second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.relaying import RELAY_ARGV, relay_url
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect
from hermes_async.core.session import Session
from hermes_async.domain.events import AnyEvent
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient

COUNT, QUICK_COUNT = 1_000, 200
#: Seconds that all have to begin before the first ends, and over which the ends are spread.
LEAD, SPREAD = 3.0, 1.0
#: Seconds for one wave.
PATIENCE = 60.0

Listen = Callable[[Session], AsyncIterator[AnyEvent]]


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count = QUICK_COUNT if quick else COUNT
    stage.flush()  # what another figure has left would go first
    with stage.ours(slots=count), stage.child("relay", RELAY_ARGV) as relay:
        url = relay_url(relay)
        yield Sides(lambda: asyncio.run(_hermes(stage, url, count)))


async def _hermes(stage: Stage, url: str, count: int) -> Sample:
    async def over_relay(session: Session) -> AsyncIterator[AnyEvent]:
        token = mint(stage.secret, sub="benchmark", sessions=[session.id], ttl=3600)
        async with RelayClient(url, token) as client:
            async for event in client.follow(session=session.id):
                if event.type == "task.completed":
                    yield event

    async with connect(stage.settings) as hermes, asyncio.timeout(3 * PATIENCE):
        here = await _wave(hermes.session(), _inbox, count)
        there = await _wave(hermes.session(), over_relay, count)
    return {
        "p50": 1000 * percentile(here, 50),
        "p99": 1000 * percentile(here, 99),
        "relay_p50": 1000 * percentile(there, 50),
        "relay_p99": 1000 * percentile(there, 99),
    }


async def _inbox(session: Session) -> AsyncIterator[AnyEvent]:
    async for batch in session.batches(coalesce=0.0):
        for delivery in batch:
            yield delivery.event
        await batch.ack()


async def _wave(session: Session, listen: Listen, count: int) -> list[float]:
    """Have so many tasks end within a second; return how late each end is known."""
    first = time.monotonic() + LEAD
    moments = [{"moment": first + SPREAD * number / count} for number in range(count)]
    await session.dispatch_many("ending", moments)
    delays: dict[str | None, float] = {}
    async with aclosing(cast("AsyncGenerator[AnyEvent]", listen(session))) as ends:
        async for event in ends:
            began, ended = _moments(event)
            if began > first:
                raise RuntimeError(f"a task began {began - first:.1f} s after the first was to end")
            delays[event.task_id] = time.monotonic() - ended
            if len(delays) == count:
                break
    return list(delays.values())


def _moments(event: Any) -> tuple[float, float]:
    began, ended = event.data.output
    return began, ended


FIGURE = Figure(
    "wake",
    [
        Row("p50", "1,000 ends in 1 s: end → inbox, p50", "ms", Goal("<", 50)),
        Row("p99", "1,000 ends in 1 s: end → inbox, p99", "ms"),
        Row("relay_p50", "  the same: end → relay's client, p50", "ms", Goal("<", 50)),
        Row("relay_p99", "  the same: end → relay's client, p99", "ms"),
    ],
    _open,
)
