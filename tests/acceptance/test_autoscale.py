"""Pools of real workers grow and shrink: nothing is lost, doubled or killed, and all can be seen."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.worker.command import worker_command
from tests.support import agents
from tests.support.asking import told
from tests.support.servers import Process, RedisServer, running_redis, wait_until_async
from tests.support.site import Site, gone, site_over, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]

#: Seconds of calm after which a pool halves; 30 unless the environment says otherwise.
CALM = "0.5"
NAP = {Lane.ASYNC: agents.nap, Lane.PROCESS: agents.sync_nap}
STEP = re.compile(r"pool (grew|shrank) from (\d+) to (\d+) slots: (\d+) busy, CPU (\d+)%")

lanes = pytest.mark.parametrize("lane", list(Lane))


async def started(site: Site, spawn: Callable[..., Process], lane: Lane, least: int, most: int) -> Process:
    """A worker whose pool may grow."""
    command = worker_command(lane, concurrency=least, up_to=most, hostname="scaled@here")
    worker = spawn([*command, "-E"], {**site.env, "AUTOSCALE_KEEPALIVE": CALM}, lane)
    await until_said(worker, "ready.")
    return worker


def steps(worker: Process) -> list[tuple[int, int, int]]:
    """Each change of the pool: slots before and after, and how many were busy."""
    return [(int(before), int(after), int(busy)) for _, before, after, busy, _ in STEP.findall(worker.log)]


async def size(worker: Process, slots: int) -> None:
    """Wait until the pool has this size."""
    await wait_until_async(lambda: steps(worker)[-1:] and steps(worker)[-1][1] == slots, 30)


async def once(*handles: TaskHandle[Any]) -> None:
    """See that each task completes in its first attempt."""
    for handle in handles:
        async with asyncio.timeout(50):
            task = await handle.ended()
        assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1)
        assert await told(handle) == ["queued", "started", "completed"]


@lanes
async def test_a_pool_grows_under_work_and_shrinks_to_its_least(
    site: Site, spawn: Callable[..., Process], lane: Lane
) -> None:
    handles = [await site.dispatch(NAP[lane], 0.5) for _ in range(40)]
    worker = await started(site, spawn, lane, 2, 6)
    await once(*handles)
    await size(worker, 2)
    assert [after for _, after, _ in steps(worker)][:2] == [4, 6]
    # The broker keeps what there is no slot for, so that other workers may take it.
    assert all(busy <= before for before, _, busy in steps(worker))
    assert_nobody_died(worker)


def assert_nobody_died(worker: Process) -> None:
    for bad in ("Traceback", "WorkerLost", "exited with", "ERROR", "Timed out"):
        assert bad not in worker.log, worker.log


@lanes
async def test_bursts_lose_and_double_nothing(site: Site, spawn: Callable[..., Process], lane: Lane) -> None:
    worker = await started(site, spawn, lane, 1, 8)
    chance = random.Random(1)
    handles = []
    for _ in range(4):
        for _ in range(chance.choice([4, 12])):
            handles.append(await site.dispatch(NAP[lane], chance.choice([0, 0.05, 0.4])))
        await wait_until_async(lambda: not pending(worker, handles), 30)
        for _ in range(chance.choice([0, 10])):  # a trickle, under which the pool shrinks
            handles.append(await site.dispatch(NAP[lane], 0.05))
            await once(handles[-1])
    await once(*handles)
    await size(worker, 1)
    worker.popen.terminate()
    assert await gone(worker) == 0
    assert len(re.findall(r"Task hermes\.\w+\[\S+\] received", worker.log)) == len(handles)
    assert_nobody_died(worker)


def pending(worker: Process, handles: list[TaskHandle[Any]]) -> int:
    return len(handles) - worker.log.count(" succeeded in ")


async def test_a_task_outlives_the_processes_around_it(site: Site, spawn: Callable[..., Process]) -> None:
    worker = await started(site, spawn, Lane.PROCESS, 1, 8)
    long = await site.dispatch(agents.sync_nap, 12)
    await site.running(long)
    await once(*[await site.dispatch(agents.sync_nap, 0.7) for _ in range(12)])
    await size(worker, 2)  # the long one is half of what it can run, which is no calm
    assert (await long.task()).status is TaskStatus.RUNNING
    await once(long)
    await size(worker, 1)
    assert_nobody_died(worker)


@pytest.fixture
def celery(redis_server: RedisServer) -> Iterator[Celery]:
    """An operator's view of the workers."""
    with Celery(broker=redis_server.broker, set_as_current=False) as celery:
        yield celery


async def asked(celery: Celery, command: str, **arguments: int) -> Any:
    """What the worker answers to a remote control command."""

    def ask() -> Any:
        with celery.connection_for_write() as connection:  # Celery would keep one of its own open
            return celery.control.broadcast(
                command, arguments, reply=True, limit=1, timeout=20, connection=connection
            )

    ((said,),) = [answer.values() for answer in await asyncio.to_thread(ask)]
    return said


async def test_celery_shows_and_changes_the_range(
    site: Site, spawn: Callable[..., Process], celery: Celery
) -> None:
    worker = await started(site, spawn, Lane.PROCESS, 1, 2)
    stats = await asked(celery, "stats")
    assert stats["autoscaler"].items() >= {"max": 2, "min": 1, "current": 1, "threshold": 0.7}.items()
    assert (stats["pool"]["max-concurrency"], stats["pool"]["running"], stats["prefetch_count"]) == (1, 0, 1)
    assert await asked(celery, "autoscale", max=4, min=3) == {"ok": "autoscale now max=4 min=3"}
    await size(worker, 3)
    stats = await asked(celery, "stats")
    assert (stats["pool"]["max-concurrency"], stats["prefetch_count"]) == (3, 3)
    assert await asked(celery, "autoscale", max=3, min=0) == {"ok": "autoscale now max=3 min=1"}
    assert await asked(celery, "autoscale", min=9) == {"ok": "autoscale now max=3 min=3"}
    napping = [await site.dispatch(agents.sync_nap, 3) for _ in range(3)]
    await site.running(*napping)
    assert "ok" in await asked(celery, "autoscale", max=1, min=1)
    await once(*napping)
    await size(worker, 1)
    assert_nobody_died(worker)


async def test_a_change_is_an_event(site: Site, spawn: Callable[..., Process], celery: Celery) -> None:
    worker = await started(site, spawn, Lane.PROCESS, 1, 2)
    view, seen = celery.events.State(), []

    def see(event: dict[str, Any]) -> None:
        view.event(event)
        seen.append(event)
        receiver.should_stop = True

    with celery.connection() as connection:
        receiver = celery.events.Receiver(connection, {"worker-pool-scaled": see})
        await site.dispatch(agents.sync_nap, 9)
        await asyncio.to_thread(receiver.capture, timeout=20, wakeup=False)
    assert [(event["before"], event["slots"], event["busy"]) for event in seen] == steps(worker)[:1]
    assert view.workers["scaled@here"].slots == 2


async def test_after_a_restart_of_the_broker_the_pool_goes_on(
    tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    for redis in running_redis(tmp_path / "redis", aof=True):
        async with site_over(redis.url, tmp_path, spawn) as site:
            worker = await started(site, spawn, Lane.PROCESS, 1, 4)
            handles = [await site.dispatch(agents.sync_nap, 3)]
            await size(worker, 2)
            redis.restart()
            await until_said(worker, "Connection to broker lost")
            handles += [await site.dispatch(agents.sync_nap, 1) for _ in range(8)]
            await size(worker, 4)
            await once(*handles)
            await size(worker, 1)
            with Celery(broker=redis.broker, set_as_current=False) as celery:
                assert (await asked(celery, "stats"))["prefetch_count"] == 1
