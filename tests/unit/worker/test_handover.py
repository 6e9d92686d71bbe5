"""A worker process that is to be replaced has settled its culprits before it hands anything back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.worker.handover import Handover, settle
from hermes_async.worker.pool import AsyncioPool
from tests.support.agents import nap
from tests.support.bench import Bench
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
S = TaskStatus


class Runners:
    """This worker's, with a station on the loop of the test."""

    worker = "w1"

    def __init__(self, bench: Bench) -> None:
        self._bench, self._loop = bench, asyncio.get_running_loop()

    def station(self) -> Any:
        return self

    async def opened(self) -> Any:
        await asyncio.sleep(0.05)  # a server is not as fast as a dict
        return self._bench.hermes

    def start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(function(*args), self._loop)


async def running(bench: Bench, **options: Any) -> Task:
    task = await bench.dispatch(nap.options(timeout=3.0, **options), 1.0)
    claimed = await bench.store.claim(task.id, "w1", 15.0)
    assert claimed is not None
    return claimed


async def test_who_is_to_blame_is_out_of_time_or_cancelled() -> None:
    bench = Bench(nap)
    late, retried, unwanted, innocent = [
        await running(bench, **options) for options in ({}, {"retry_limit": 1}, {}, {})
    ]
    await bench.store.append(make_event(unwanted, "task.cancel_requested"))
    jobs = [(task.id, task is not innocent) for task in (late, retried, unwanted, innocent)]
    await asyncio.to_thread(settle, Runners(bench), jobs)  # type: ignore[arg-type]
    records = [await bench.record(task) for task in (late, retried, unwanted, innocent)]
    assert [task.status for task in records] == [S.FAILED, S.QUEUED, S.CANCELLED, S.RUNNING]
    assert (records[0].reason, records[1].failures) == (Reason.TIMEOUT, 1)


def test_only_the_async_lane_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, app = AsyncioPool(1, app=SimpleNamespace(steps={"consumer": set()})), SimpleNamespace(hermes=None)
    heard: list[Any] = []
    monkeypatch.setattr(pool, "on_recycle", heard.append)
    for each in (SimpleNamespace(), pool):
        Handover(None).start(SimpleNamespace(pool=each, app=app))
    assert len(heard) == 1
