"""How long a parent is held up by a dispatch: from the call to the handle, one after the other, no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import plain
from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect

#: Dispatches that are not counted, and those that are.
WARM_UP, COUNT, QUICK_COUNT = 50, 1_000, 200


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count = QUICK_COUNT if quick else COUNT
    yield Sides(lambda: asyncio.run(_hermes(stage, count)), lambda: _plain(stage, count))


async def _hermes(stage: Stage, count: int) -> Sample:
    stage.flush()
    times = []
    async with connect(stage.settings) as hermes:
        session = hermes.session("bench")
        for _ in range(WARM_UP + count):
            began = time.perf_counter()
            await session.dispatch("noop")
            times.append(time.perf_counter() - began)
    return _sample(times[WARM_UP:])


def _plain(stage: Stage, count: int) -> Sample:
    stage.flush()
    times = []
    for _ in range(WARM_UP + count):
        began = time.perf_counter()
        plain.noop.apply_async()
        times.append(time.perf_counter() - began)
    return _sample(times[WARM_UP:])


def _sample(times: list[float]) -> Sample:
    return {"p50": 1000 * percentile(times, 50), "p99": 1000 * percentile(times, 99)}


FIGURE = Figure(
    "dispatch",
    [
        Row("p50", "dispatch → handle, p50", "ms", Goal("≤", 0.6, 0.3, of="ratio")),
        Row("p99", "dispatch → handle, p99", "ms", Goal("<", 25)),
    ],
    _open,
)
