"""Hundreds or thousands of one-second tasks at once, a slot for each in one worker: how long do they wait?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import plain
from benchmarks.children import Child, paused
from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from benchmarks.stamps import Stamp, Stamps
from hermes_async.bootstrap import connect

#: For how many seconds each task sleeps.
NAP, QUICK_NAP = 1.0, 0.3
#: How many times fewer tasks a quick run has.
QUICK = 6
#: Seconds for a whole burst.
PATIENCE = 120.0


def _figure(name: str, count: int, wait: Goal, last_start: Goal) -> Figure:
    @contextmanager
    def opened(stage: Stage, quick: bool) -> Iterator[Sides]:
        size, nap = (count // QUICK, QUICK_NAP) if quick else (count, NAP)
        stage.flush()
        with stage.plain(pool="gevent", concurrency=size) as theirs, stage.ours(slots=size) as (ours,):
            asyncio.run(_hermes(stage, size, 0.0, theirs))  # both come up, and the greenlets are made
            _plain(stage, size, 0.0, ours)
            yield Sides(
                lambda: asyncio.run(_hermes(stage, size, nap, theirs)),
                lambda: _plain(stage, size, nap, ours),
            )

    rows = [
        Row("max_wait", f"{count:,} tasks of 1 s: longest wait", "s", wait),
        Row("last_start", "  the same beside Celery's", "s", last_start),
        Row("median_wait", "  half of the waits are below", "s"),
        Row("dispatched", "  all dispatched after", "s"),
        Row("makespan", "  last end after", "s"),
        Row("known", "  parent knows all ends after", "s"),
    ]
    return Figure(name, rows, opened)


async def _hermes(stage: Stage, count: int, nap: float, idle: Child) -> Sample:
    stamps = Stamps(stage.stamps)
    inputs = [{"number": number, "seconds": nap} for number in range(count)]
    async with connect(stage.settings) as hermes, asyncio.timeout(PATIENCE):
        session = hermes.session("bench")
        await session.dispatch("noop")
        with paused(idle):
            began = time.monotonic()
            handles = await session.dispatch_many("nap", inputs)
            dispatched = time.monotonic()
            await asyncio.gather(*handles)
            known = time.monotonic()
    sample = _sample(began, dispatched, stamps.wait(count, PATIENCE))
    return {**sample, "known": known - began}


def _plain(stage: Stage, count: int, nap: float, idle: Child) -> Sample:
    stamps = Stamps(stage.stamps)
    inputs = [(number, nap) for number in range(count)]
    with paused(idle):
        began = time.monotonic()
        dispatch = plain.dispatch_each if stage.stock else plain.dispatch_many
        dispatch(plain.nap, inputs)
        dispatched = time.monotonic()
        return _sample(began, dispatched, stamps.wait(count, PATIENCE))


def _sample(began: float, dispatched: float, stamps: dict[int, Stamp]) -> Sample:
    """Return what came of a burst; what dispatching takes counts as waiting."""
    waits = [stamp.began - began for stamp in stamps.values()]
    return {
        "max_wait": max(waits),
        "last_start": max(waits),
        "median_wait": percentile(waits, 50),
        "dispatched": dispatched - began,
        "makespan": max(stamp.ended for stamp in stamps.values()) - began,
    }


FIGURE = _figure("burst", 300, Goal("<", 0.2, 0.1), Goal("≤", 0.4, 0.25, of="ratio"))
LARGE = _figure("burst3000", 3_000, Goal("<", 2, 1), Goal("≤", 0.15, 0.1, of="ratio"))
