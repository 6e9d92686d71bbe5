"""Tasks that wait for an answer: what each of them holds, and how soon others start beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from benchmarks.children import Child
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.stage import Stage
from benchmarks.stamps import Stamps
from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.domain.task import TaskStatus

#: Slots of the worker, tasks that ask, over how many sessions, and normal tasks beside them.
SLOTS, ASKING, SESSIONS, BESIDE = 10, 1_000, 50, 20
QUICK_ASKING = 100
#: Seconds that all have to ask, or to end.
PATIENCE = 120.0
_EVERY = 0.2


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    yield Sides(lambda: _hermes(stage, QUICK_ASKING if quick else ASKING))


def _hermes(stage: Stage, count: int) -> Sample:
    stage.flush()
    with stage.ours(slots=SLOTS) as (worker,):
        return asyncio.run(_sample(stage, worker, count))


async def _sample(stage: Stage, worker: Child, count: int) -> Sample:
    async with connect(stage.settings) as hermes:
        await (await hermes.session("first").dispatch("mark", number=0))
        idle, began = worker.memory, time.monotonic()
        sessions = [hermes.session(f"asking {number}") for number in range(SESSIONS)]
        for session in sessions:
            await session.dispatch_many("ask", [{}] * (count // SESSIONS))
        await _until(lambda: _are(hermes, TaskStatus.INPUT_REQUIRED, count))
        asking = time.monotonic() - began
        waits, full = await _starts(stage, hermes), worker.memory
        began = time.monotonic()
        tasks = await hermes.tasks(status=TaskStatus.INPUT_REQUIRED, limit=count)
        handles = [await hermes.handle(task.id) for task in tasks]
        await asyncio.gather(*(handle.answer("yes") for handle in handles))
        await asyncio.gather(*handles)
        ended = time.monotonic() - began
    memory = {"each": (full - idle) / count / 1e3} if full and idle else {}
    return {"asking": asking, "longest": max(waits) * 1e3, "ended": ended, **memory}


async def _starts(stage: Stage, hermes: Hermes) -> list[float]:
    """Return how long it takes until a task begins, one after the other."""
    waits = []
    for number in range(BESIDE):
        stamps = Stamps(stage.stamps)
        began = time.monotonic()
        await (await hermes.session("beside").dispatch("mark", number=number))
        stamp = stamps.wait(1, PATIENCE)[number]
        waits.append(stamp.began - began)
    return waits


async def _are(hermes: Hermes, status: TaskStatus, count: int) -> bool:
    return len(await hermes.tasks(status=status, limit=count)) == count


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await is_so():
                return
            await asyncio.sleep(_EVERY)


FIGURE = Figure(
    "asking",
    [
        Row("asking", "10 slots: 1,000 tasks have asked after", "s"),
        Row("each", "  each of them, PSS", "kB"),
        Row("longest", "  longest of 20 starts of another task", "ms", Goal("<", 1_000)),
        Row("ended", "  1,000 answers: all have ended after", "s"),
    ],
    _open,
)
