"""What a worker holds in memory: idle, after 300 tasks, and with 3,000 coroutines that sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import plain
from benchmarks.children import Child
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.stage import Stage
from benchmarks.stamps import Stamps
from hermes_async.bootstrap import connect

#: Tasks that have ended, and for how many seconds each slept; tasks that sleep on.
ENDED, NAP, ASLEEP = 300, 1.0, 3_000
QUICK_ENDED, QUICK_NAP, QUICK_ASLEEP = 50, 0.1, 500
#: Seconds for which those sleep: until the worker is killed.
FOR_EVER = 600.0
#: Seconds that a worker has to come to rest, and to start everything.
REST, PATIENCE = 0.5, 120.0
_Size = tuple[int, float, int]
#: Dispatches so many tasks of a name, each with its number and some seconds.
_Dispatch = Callable[[str, int, float], object]


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    size = (QUICK_ENDED, QUICK_NAP, QUICK_ASLEEP) if quick else (ENDED, NAP, ASLEEP)
    yield Sides(lambda: _hermes(stage, size), lambda: _plain(stage, size))


def _hermes(stage: Stage, size: _Size) -> Sample:
    stage.flush()
    with stage.ours(slots=size[2]) as (worker,):
        return _sample(stage, worker, size, lambda *what: asyncio.run(_dispatch(stage, *what)))


def _plain(stage: Stage, size: _Size) -> Sample:
    stage.flush()
    with stage.plain(pool="gevent", concurrency=size[2]) as worker:
        return _sample(stage, worker, size, _dispatch_plain)


def _sample(stage: Stage, worker: Child, size: _Size, dispatch: _Dispatch) -> Sample:
    """Measure a fresh worker: after its first task, after many, and while many more run."""
    ended, nap, asleep = size
    idle = _memory(stage, worker, lambda: dispatch("nap", 1, 0.0), 1)
    after = _memory(stage, worker, lambda: dispatch("nap", ended, nap), ended)
    full = _memory(stage, worker, lambda: dispatch("linger", asleep, FOR_EVER), asleep)
    if not (idle and after and full):
        return {}
    return {
        "idle": idle / 1e6,
        "after": after / 1e6,
        "full": full / 1e6,
        "each": (full - idle) / asleep / 1e3,
    }


def _memory(stage: Stage, worker: Child, dispatch: Callable[[], object], count: int) -> float | None:
    stamps = Stamps(stage.stamps)
    dispatch()
    stamps.wait(count, PATIENCE)
    time.sleep(REST)
    return worker.memory


async def _dispatch(stage: Stage, name: str, count: int, seconds: float) -> None:
    async with connect(stage.settings) as hermes:
        inputs = [{"number": number, "seconds": seconds} for number in range(count)]
        await hermes.session("bench").dispatch_many(name, inputs)


def _dispatch_plain(name: str, count: int, seconds: float) -> None:
    task: Any = getattr(plain, name)
    plain.dispatch_many(task, [(number, seconds) for number in range(count)])


FIGURE = Figure(
    "memory",
    [
        Row("idle", "worker after its first task, PSS", "MB"),
        Row("after", "worker after 300 tasks of 1 s, PSS", "MB", Goal("≤", 0.8, 0.65, of="ratio")),
        Row("full", "worker with 3,000 sleeping tasks, PSS", "MB"),
        Row("each", "  each of them", "kB", Goal("<", 15)),
    ],
    _open,
)
