"""How many no-ops a second two cores work off, from a queue that is full when the workers begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks import plain
from benchmarks.children import Child, paused
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.stage import Stage
from benchmarks.stamps import Stamps
from hermes_async.bootstrap import connect

#: Tasks of one run.
COUNT, QUICK_COUNT = 5_000, 500
#: Dispatches of hermes_async in one batch.
BATCH = 1_000
#: Seconds for one run.
PATIENCE = 120.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count = QUICK_COUNT if quick else COUNT
    stage.flush()
    with stage.plain(pool="prefork", concurrency=2) as theirs, stage.ours(slots=300, processes=2) as ours:
        sides = Sides(
            lambda: _drained(stage, count, lambda: asyncio.run(_hermes(stage, count)), ours, [theirs]),
            lambda: _drained(stage, count, lambda: _plain(count), [theirs], ours),
        )
        for run in (sides.hermes, sides.plain):  # all come up
            assert run is not None
            run()
        yield sides


def _drained(
    stage: Stage, count: int, fill: Callable[[], None], workers: Sequence[Child], idle: Sequence[Child]
) -> Sample:
    """Fill the queue while nobody works, then let the workers of one side work it off."""
    stamps = Stamps(stage.stamps)
    with paused(*idle):
        with paused(*workers):
            fill()
            began = time.monotonic()
        ended = max(stamp.ended for stamp in stamps.wait(count, PATIENCE).values())
    return {"rate": count / (ended - began)}


async def _hermes(stage: Stage, count: int) -> None:
    async with connect(stage.settings) as hermes:
        session = hermes.session("bench")
        for first in range(0, count, BATCH):
            numbers = range(first, min(count, first + BATCH))
            await session.dispatch_many("mark", [{"number": number} for number in numbers])


def _plain(count: int) -> None:
    plain.dispatch_many(plain.mark, [(number,) for number in range(count)])


FIGURE = Figure(
    "drain",
    [Row("rate", "no-ops on two cores, queue full", "tasks/s", Goal("≥", 3, 6, of="ratio"))],
    _open,
)
