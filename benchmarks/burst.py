"""Hundreds of one-second tasks at once into one worker with a slot for each: how long do they wait?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from benchmarks import plain
from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from benchmarks.stamps import Stamp, Stamps
from hermes_async.bootstrap import connect

#: Tasks at once, and for how many seconds each sleeps.
COUNT, NAP = 300, 1.0
QUICK_COUNT, QUICK_NAP = 50, 0.3
#: Seconds for a whole burst.
PATIENCE = 60.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count, nap = (QUICK_COUNT, QUICK_NAP) if quick else (COUNT, NAP)
    pool = "gevent" if find_spec("gevent") else "threads"
    with stage.workers(slots=count, pool=pool, concurrency=count):
        asyncio.run(_hermes(stage, count, 0.0))  # both come up, and the threads are made
        _plain(stage, count, 0.0)
        yield Sides(lambda: asyncio.run(_hermes(stage, count, nap)), lambda: _plain(stage, count, nap))


async def _hermes(stage: Stage, count: int, nap: float) -> Sample:
    stamps = Stamps(stage.stamps)
    async with connect(stage.settings) as hermes, asyncio.timeout(PATIENCE):
        session = hermes.session("bench")
        await session.dispatch("noop")
        began = time.monotonic()
        handles = await asyncio.gather(
            *(session.dispatch("nap", number=number, seconds=nap) for number in range(count))
        )
        dispatched = time.monotonic()
        await asyncio.gather(*handles)
        known = time.monotonic()
    return {
        # All calls are made at `began`; what the dispatching itself takes counts as waiting.
        **_sample(dict.fromkeys(range(count), began), stamps.wait(count, PATIENCE)),
        "dispatched": dispatched - began,
        "known": known - began,
    }


def _plain(stage: Stage, count: int, nap: float) -> Sample:
    stamps = Stamps(stage.stamps)
    sent = {}
    for number in range(count):
        sent[number] = time.monotonic()
        plain.nap.apply_async((number, nap))
    dispatched = time.monotonic()
    return {**_sample(sent, stamps.wait(count, PATIENCE)), "dispatched": dispatched - sent[0]}


def _sample(sent: dict[int, float], stamps: dict[int, Stamp]) -> Sample:
    waits = [stamps[number].began - moment for number, moment in sent.items()]
    began = min(sent.values())
    return {
        "max_wait": max(waits),
        "p95_wait": percentile(waits, 95),
        "last_start": max(stamp.began for stamp in stamps.values()) - began,
        "makespan": max(stamp.ended for stamp in stamps.values()) - began,
    }


FIGURE = Figure(
    "burst",
    [
        Row("max_wait", "300 tasks of 1 s at once: longest wait", "s", Goal(0.5)),
        Row("p95_wait", "  95 % of the waits are below", "s"),
        Row("dispatched", "  all dispatched after", "s"),
        Row("last_start", "  last start after", "s"),
        Row("makespan", "  last end after", "s"),
        Row("known", "  parent knows all ends after", "s"),
    ],
    _open,
)
