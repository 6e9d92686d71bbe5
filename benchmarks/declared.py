"""Hundreds of declared agents at once in one worker, beside the same runs in a bare pydantic-ai."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.children import ROOT, Child, paused
from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect
from hermes_async.core.handle import TaskHandle
from hermes_async.settings import Settings

CONFIG = Path(__file__).with_name("declared.yaml")
#: Agents at once.
COUNT, QUICK_COUNT = 300, 20
#: Seconds for all of them.
PATIENCE = 120.0
LOOK_EVERY = 0.5


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count = QUICK_COUNT if quick else COUNT
    argv = [sys.executable, "-m", "tests.support.model", "--script", "benchmarks.talk:answer"]
    stage.flush()
    with stage.child("model", argv) as model:
        model.wait_until(lambda: model.said.startswith("http"))
        env = {"BENCH_MODEL": model.said.strip(), "HERMES_CONFIG": str(CONFIG)}
        with stage.ours(slots=count, env=env) as (worker,):
            settings = Settings.read(CONFIG, {**stage.env, **env})
            asyncio.run(_hermes(settings, 1, worker))
            yield Sides(
                lambda: asyncio.run(_hermes(settings, count, worker)),
                lambda: _direct(count, {**stage.env, **env}, worker),
            )


async def _hermes(settings: Settings, count: int, worker: Child) -> Sample:
    before = worker.memory or 0.0
    async with connect(settings) as hermes, asyncio.timeout(PATIENCE):
        session = hermes.session("bench")
        sizes: list[float] = []
        watching = asyncio.create_task(_watch(worker, sizes))
        began = time.monotonic()
        handles = await session.dispatch_many("thinker", [{"input": "Go."}] * count)
        await asyncio.gather(*handles)
        wall = time.monotonic() - began
        watching.cancel()
        waits = [await _waited(handle) for handle in handles]
    grown = (max(sizes) - before) / count / 1e6
    return {"wall": wall, "max_wait": max(waits), "median_wait": percentile(waits, 50), "each": grown}


async def _watch(worker: Child, sizes: list[float]) -> None:
    """Note how large a worker is, every now and then: to look takes processor time."""
    while True:
        sizes.append(await asyncio.to_thread(lambda: worker.memory or 0.0))
        await asyncio.sleep(LOOK_EVERY)


async def _waited(handle: TaskHandle[str]) -> float:
    task = await handle.task()
    return (task.started_at or 0.0) - task.created_at


def _direct(count: int, env: dict[str, str], worker: Child) -> Sample:
    argv = [sys.executable, "-m", "benchmarks.direct", str(count)]
    with paused(worker):
        done = subprocess.run(
            argv, env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
    return {"wall": float(done.stdout)}


FIGURE = Figure(
    "declared",
    [
        Row(
            "wall",
            "300 declared agents: all ended after",
            "s",
            Goal("≤", 1.1, 0.9, of="ratio"),
        ),
        Row("max_wait", "  longest wait for a start", "s", Goal("<", 1.5, 0.5)),
        Row("median_wait", "  half of the waits are below", "s"),
        Row("each", "  memory of each while they run", "MB", Goal("<", 1.0, 0.3)),
    ],
    _open,
)
