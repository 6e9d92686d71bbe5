"""How fast a parent hands over many tasks at once: the rate of a thousand, no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import plain
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect

#: Tasks of one batch, and batches of one run.
SIZE, BATCHES = 1_000, 5
QUICK_SIZE, QUICK_BATCHES = 200, 1


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    size, batches = (QUICK_SIZE, QUICK_BATCHES) if quick else (SIZE, BATCHES)
    yield Sides(lambda: asyncio.run(_hermes(stage, size, batches)), lambda: _plain(stage, size, batches))


async def _hermes(stage: Stage, size: int, batches: int) -> Sample:
    stage.flush()
    async with connect(stage.settings) as hermes:
        session = hermes.session("bench")
        await session.dispatch_many("noop", [{}] * 10)  # connects
        began = time.perf_counter()
        for _ in range(batches):
            await session.dispatch_many("noop", [{}] * size)
        rate = batches * size / (time.perf_counter() - began)
    return {"rate": rate, "pipelined": rate}


def _plain(stage: Stage, size: int, batches: int) -> Sample:
    return {
        "rate": _rate(stage, size, batches, plain.dispatch_each),
        "pipelined": _rate(stage, size, batches, plain.dispatch_many),
    }


def _rate(stage: Stage, size: int, batches: int, dispatch: Callable[..., object]) -> float:
    stage.flush()
    dispatch(plain.noop, [()] * 10)  # connects
    began = time.perf_counter()
    for _ in range(batches):
        dispatch(plain.noop, [()] * size)
    return batches * size / (time.perf_counter() - began)


FIGURE = Figure(
    "batch",
    [
        Row("rate", "1,000 dispatched together", "tasks/s", Goal("≥", 5, 10, of="ratio")),
        Row("pipelined", "  beside `Producer.batch`", "tasks/s"),
    ],
    _open,
)
