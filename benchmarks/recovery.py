"""How soon a hundred running tasks run again when their worker is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figure import Figure, Goal, Row, Sides
from benchmarks.stage import Stage
from benchmarks.stamps import Stamps
from hermes_async.bootstrap import connect

#: Tasks that run, each longer than anybody looks.
COUNT, FOR_EVER = 100, 600.0
#: Seconds of a lease: the product's own, and a short one; a quick run has the short one only.
LEASES = {"default": 15.0, "short": 3.0}
#: Seconds beyond a lease within which everything is to run again.
ALLOWED = 5.0
#: Seconds beyond a lease after which we give up.
PATIENCE = 60.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    leases = {"short": LEASES["short"]} if quick else LEASES
    yield Sides(lambda: {name: _recovered(stage, lease) for name, lease in leases.items()})


def _recovered(stage: Stage, lease: float) -> float:
    """Return how many seconds pass from the kill to the last new start."""
    stage.flush()
    with stage.ours(slots=COUNT, lease=lease) as (doomed,):
        started = Stamps(stage.stamps)
        asyncio.run(_dispatch(stage))
        started.wait(COUNT, PATIENCE)
        with stage.ours(slots=COUNT, lease=lease):
            again = Stamps(stage.stamps)
            killed = time.monotonic()
            doomed.kill()
            stamps = again.wait(COUNT, lease + PATIENCE)
    return max(stamp.began for stamp in stamps.values()) - killed


async def _dispatch(stage: Stage) -> None:
    async with connect(stage.settings) as hermes:
        inputs = [{"number": number, "seconds": FOR_EVER} for number in range(COUNT)]
        await hermes.session("bench").dispatch_many("linger", inputs)


FIGURE = Figure(
    "recovery",
    [
        Row(
            name,
            f"kill -9, lease {lease:g} s: {COUNT} run again",
            "s",
            Goal("<", lease + ALLOWED),
        )
        for name, lease in LEASES.items()
    ],
    _open,
)
