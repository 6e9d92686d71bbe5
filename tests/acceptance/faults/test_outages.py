"""Redis away, slow or half there; workers that sleep through their lease; clocks that jump."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.task import TaskStatus
from tests.acceptance.faults.stage import LEASE, Stage, beginnings
from tests.support.asking import ended, running, told
from tests.support.proxy import Mode
from tests.support.servers import ROOT, wait_until_async

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(90)]

#: What DESIGN promises for a Redis that is down, in seconds.
SOON = 3.0


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.RESET, Mode.HALF_OPEN, Mode.SLOW])
async def test_a_partition_delays_and_loses_nothing(stage: Stage, hermes: Hermes, mode: Mode) -> None:
    session = hermes.session(f"network {mode}")
    short, long = [
        await session.dispatch("work", name, seconds) for name, seconds in (("s", 1.0), ("l", 4.5))
    ]
    inboxes = asyncio.create_task(_emptied(session, 3))
    await running(short, long)
    stage.proxy.set(mode)
    asked, refusal = await _dispatched(session, "meanwhile", "a key")
    await asyncio.sleep(1.5 * LEASE)
    stage.proxy.set(Mode.PASS)
    assert refusal is None or refusal < SOON
    assert (refusal is None) == (mode is Mode.SLOW)
    if asked is None:
        asked, _ = await _dispatched(session, "meanwhile", "a key")
    assert asked is not None
    for handle in (short, long, asked):
        task = await ended(handle)
        assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1), task
        assert beginnings(stage, handle.id) == [1]
    assert len(await session.tasks()) == 3  # what was refused may have been written, but only once
    async with asyncio.timeout(15):
        assert sorted(await inboxes) == sorted([short.id, long.id, asked.id])
    assert await session.pending() == []


async def _dispatched(session: Session, stamp: str, key: str) -> tuple[TaskHandle[Any] | None, float | None]:
    """A handle, or None and the seconds until the dispatch was refused."""
    began = time.monotonic()
    try:
        return await session.submit("work", {"stamp": stamp}, idempotency_key=key), None
    except StoreUnavailable as exc:
        assert "is it running and reachable" in str(exc)
        return None, time.monotonic() - began


async def _emptied(session: Session, count: int) -> list[str]:
    """Acknowledge until so many ends have come, whatever happens to the connection."""
    tasks: list[str] = []
    while len(tasks) < count:
        try:
            async for delivery in session.inbox():
                if await delivery.ack() and delivery.event.type == "task.completed":
                    assert delivery.event.task_id is not None
                    tasks.append(delivery.event.task_id)
                    if len(tasks) == count:
                        break
        except StoreUnavailable:
            await asyncio.sleep(0.2)
    return tasks


async def test_nudges_are_heard_again_after_a_half_open_connection(stage: Stage, hermes: Hermes) -> None:
    session = hermes.session("nudges")
    lateness = asyncio.create_task(_lateness(session))
    await (await session.dispatch("work", "before"))
    stage.proxy.set(Mode.HALF_OPEN)
    await asyncio.sleep(0.1)
    stage.proxy.set(Mode.PASS)
    await _dispatched(session, "meanwhile", "a key")  # whoever asks finds the dead connection
    await asyncio.sleep(3.0)
    for _ in range(3):
        await (await session.dispatch("work", "after"))
    async with asyncio.timeout(15):
        assert max((await lateness)[-10:]) < 0.5


async def _lateness(session: Session) -> list[float]:
    """By how many seconds each event came late, until the third task after a while has ended."""
    late, last, ends = [], 0, 0
    while ends < 4:
        try:
            async for event in session.events(last):
                last = event.seq
                late.append(time.time() - event.time)
                ends += event.type == "task.completed"
                if ends == 4:
                    break
        except StoreUnavailable:
            await asyncio.sleep(0.2)
    return late


async def test_an_agent_that_awaits_its_child_outlives_an_outage(stage: Stage, hermes: Hermes) -> None:
    session = hermes.session("family")
    handle = await session.dispatch("family", "child", 1.0, pause=2.0)
    await wait_until_async(lambda: _accepted(stage, session.id))
    stage.proxy.set(Mode.DROP)
    await asyncio.sleep(6.0)  # the pause is over, and a read has timed out
    stage.proxy.set(Mode.PASS)
    async with asyncio.timeout(30):
        while not (task := await handle.task()).status.is_terminal:
            await asyncio.sleep(0.1)
    assert (task.status, task.output, task.attempt) == (TaskStatus.COMPLETED, "child", 1), task.error


def _accepted(stage: Stage, session_id: str) -> bool:
    return any(line.what == "accepted" and line.session == session_id for line in stage.ledger.read())


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_a_redis_that_restarts_has_everything(stage: Stage, hermes: Hermes, how: str) -> None:
    session = hermes.session(f"redis {how}")
    handles = [await session.dispatch("work", str(n), seconds) for n, seconds in enumerate((0.5, 1.0, 4.0))]
    handles += [await session.dispatch("sync_work", "sync", 1.0)]
    await running(*handles[:3])
    (stage.server.stop if how == "restarted" else stage.server.kill)()
    asked, refusal = await _dispatched(session, "meanwhile", "a key")
    assert asked is None
    assert refusal is not None
    assert refusal < SOON
    await asyncio.sleep(1.5 * LEASE)
    stage.server.start()
    for handle in handles:
        task = await ended(handle)
        assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1), task
    assert [event.seq async for event in handles[-1].events()]
    async with asyncio.timeout(20):
        assert await (await session.dispatch("work", "after")) == "after"


async def test_a_worker_that_sleeps_through_its_lease(stage: Stage, hermes: Hermes) -> None:
    stage.have("async-1")
    session = hermes.session("asleep")
    handles = [await session.dispatch("work", str(n), seconds=4.0) for n in range(5)]
    await wait_until_async(lambda: all(beginnings(stage, handle.id) for handle in handles))
    stage.processes["async-1"].signal(signal.SIGSTOP)
    stage.start("async-2")
    await wait_until_async(lambda: all(beginnings(stage, handle.id) == [1, 2] for handle in handles))
    stage.processes["async-1"].signal(signal.SIGCONT)  # it goes on with its news, as if nothing had happened
    for n, handle in enumerate(handles):
        task = await ended(handle)
        assert (task.output, task.attempt, task.losses) == (str(n), 2, 1)
        assert await told(handle) == [*LOST, "started", "progress", "session.message", "completed"]
    last = await hermes.store.last_seq(session.id)
    assert stage.stop("async-1") == []  # by now it has written all that it wanted to write
    assert await hermes.store.last_seq(session.id) == last


LOST = ["queued", "started", "attempt_lost"]


JUMPING = """
import pathlib, time
real, jump = time.time, pathlib.Path({path!r})
time.time = lambda: real() + float(jump.read_text())
"""


async def test_a_worker_whose_clock_jumps(stage: Stage, hermes: Hermes) -> None:
    """Python's clock stands in for the machine's: Redis counts leases, the monotonic clock pauses."""
    stage.have()
    jump = stage.folder / "jump"
    jump.write_text("0")
    stage.start("async-1", env=_python_path(stage.folder / "jumping", JUMPING.format(path=str(jump))))
    session = hermes.session("clock")
    handles = [await session.dispatch("work", str(n), seconds=3.0) for n in range(5)]
    await running(*handles)
    jump.write_text("7200")
    forward = await session.dispatch("work", "retried", failures=1)
    await ended(forward)
    jump.write_text("-7200")
    back = await session.dispatch("work", "retried", failures=1)
    for handle in (*handles, forward, back):
        task = await ended(handle)
        assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1 if handle in handles else 2)
        assert task.finished_at is not None
        assert abs(task.finished_at - time.time()) < 60
    assert stage.stop("async-1") == []


def _python_path(folder: Path, sitecustomize: str) -> dict[str, str]:
    """An environment in which Python runs this first."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(sitecustomize)
    return {"PYTHONPATH": f"{folder}:{ROOT}"}
