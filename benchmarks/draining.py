"""How many no-ops a second go through one worker, from the first dispatch to the last end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import plain
from benchmarks.figure import Figure, Row, Sample, Sides
from benchmarks.stage import Stage
from benchmarks.stamps import Stamp, Stamps
from hermes_async.bootstrap import connect

#: Tasks of one run.
COUNT, QUICK_COUNT = 3_000, 300
#: Dispatches of hermes_async under way at once.
AT_ONCE = 250
#: Seconds for one run.
PATIENCE = 120.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count = QUICK_COUNT if quick else COUNT
    with stage.workers(slots=300, pool="prefork", concurrency=2):
        asyncio.run(_hermes(stage, 100))  # both come up
        _plain(stage, 100)
        yield Sides(lambda: asyncio.run(_hermes(stage, count)), lambda: _plain(stage, count))


async def _hermes(stage: Stage, count: int) -> Sample:
    stamps = Stamps(stage.stamps)
    async with connect(stage.settings) as hermes:
        session = hermes.session("bench")
        began = time.monotonic()
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(count, first + AT_ONCE))
            await asyncio.gather(*(session.dispatch("mark", number=number) for number in numbers))
        dispatched = time.monotonic()
    return _sample(began, dispatched, stamps.wait(count, PATIENCE))


def _plain(stage: Stage, count: int) -> Sample:
    stamps = Stamps(stage.stamps)
    began = time.monotonic()
    for number in range(count):
        plain.mark.apply_async((number,))
    dispatched = time.monotonic()
    return _sample(began, dispatched, stamps.wait(count, PATIENCE))


def _sample(began: float, dispatched: float, stamps: dict[int, Stamp]) -> Sample:
    ended = max(stamp.ended for stamp in stamps.values())
    return {
        "rate": len(stamps) / (ended - began),
        "dispatch_rate": len(stamps) / (dispatched - began),
    }


FIGURE = Figure(
    "drain",
    [
        Row("rate", "3,000 no-ops through one worker", "tasks/s"),
        Row("dispatch_rate", "  dispatched meanwhile", "tasks/s"),
    ],
    _open,
)
