"""How soon a parent learns that a no-op has ended, while nothing else is going on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import plain
from benchmarks.children import Child, paused
from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect

#: Round trips that are not counted, and those that are.
WARM_UP, COUNT, QUICK_COUNT = 10, 200, 40
#: Seconds between two of them: the workers come to rest.
PAUSE = 0.01
#: Seconds for one of them; the first waits for the worker to come up.
PATIENCE = 60.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count = QUICK_COUNT if quick else COUNT
    stage.flush()
    with stage.plain(pool="prefork", concurrency=2) as theirs, stage.ours(slots=300) as (ours,):
        yield Sides(lambda: asyncio.run(_hermes(stage, count, theirs)), lambda: _plain(count, ours))


async def _hermes(stage: Stage, count: int, idle: Child) -> Sample:
    times = []
    async with connect(stage.settings) as hermes, asyncio.timeout(PATIENCE):
        session = hermes.session("bench")
        with paused(idle):
            for _ in range(WARM_UP + count):
                began = time.perf_counter()
                handle = await session.dispatch("noop")
                held = time.perf_counter()
                await handle
                times.append((held - began, time.perf_counter() - began))
                await asyncio.sleep(PAUSE)
    return _sample(times[WARM_UP:])


def _plain(count: int, idle: Child) -> Sample:
    times = []
    with paused(idle):
        for _ in range(WARM_UP + count):
            began = time.perf_counter()
            result = plain.answered.delay()
            held = time.perf_counter()
            result.get(timeout=PATIENCE)
            times.append((held - began, time.perf_counter() - began))
            time.sleep(PAUSE)
    return _sample(times[WARM_UP:])


def _sample(times: list[tuple[float, float]]) -> Sample:
    held, known = zip(*times, strict=True)
    return {
        "p50": 1000 * percentile(known, 50),
        "p99": 1000 * percentile(known, 99),
        "held_p50": 1000 * percentile(held, 50),
        "held_p99": 1000 * percentile(held, 99),
    }


FIGURE = Figure(
    "roundtrip",
    [
        Row("p50", "no-op, dispatch → parent knows it, p50", "ms", Goal("≤", 0.5, 0.35, of="ratio")),
        Row("p99", "no-op, dispatch → parent knows it, p99", "ms"),
        Row("held_p50", "  of which dispatch → handle, p50", "ms"),
        Row("held_p99", "  of which dispatch → handle, p99", "ms", Goal("<", 25)),
    ],
    _open,
)
