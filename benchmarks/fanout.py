"""How a session's events reach many clients at once, beside python-socketio's own Redis manager."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import socketio

from benchmarks import listeners, manager
from benchmarks.children import Child, free_port, paused
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.listeners import Audience
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.domain.events import task_event
from hermes_async.domain.task import Progress, Task
from hermes_async.relay.auth import mint

#: Clients of the session, events of a burst, events of the paced part, and how many of those a second.
CLIENTS, BURST, PACED, RATE = 100, 100, 100, 20.0
QUICK_CLIENTS, QUICK_PACED = 20, 20
#: Bursts of a run, and the seconds from one to the next.
BURSTS, REST = 10, 1.0
#: Seconds for one part of a run.
PATIENCE = 60.0

#: What plain Socket.IO sends is as large as an event of ours.
LIKE = {
    "seq": 12,
    "id": "t04-wpyhg4xm215gxz6d8cxxzks0tc:1:123456789012345",
    "type": "task.progress",
    "time": 1795340114.507,
    "session_id": "hall",
    "task_id": "t04-wpyhg4xm215gxz6d8cxxzks0tc",
    "agent": "noop",
    "attempt": 1,
    "trace_id": "b031c5fe822616522db153da62f83ae8",
}

_WHERE = re.compile(r"relay on (http://\S+)")
Say = Callable[[int], Awaitable[object]]


@contextmanager
def relay_on(stage: Stage) -> Iterator[tuple[Child, str]]:
    """Run a relay; yield it with its URL."""
    argv = [sys.executable, "-m", "hermes_async.cli", "relay", "--port", "0"]
    with stage.child("relay", argv) as relay:
        relay.wait_until(lambda: _WHERE.search(relay.said) is not None)
        found = _WHERE.search(relay.said)
        assert found is not None
        yield relay, found[1]


async def audience(
    stage: Stage, server: Child, wanted: Audience, speak: Callable[[], Awaitable[None]]
) -> dict[str, float]:
    """Return what clients have heard while somebody spoke, with the server's processor time as `cpu`."""
    with stage.child("listeners", wanted.argv()) as child:
        await asyncio.to_thread(child.wait_until, lambda: listeners.READY in child.said)
        before = _seconds(server)
        await speak()
        await asyncio.to_thread(child.wait_until, lambda: child.said.rstrip().endswith("}"), PATIENCE)
        spent = _seconds(server) - before
        return {**json.loads(child.said.splitlines()[-1]), "cpu": spent}


def _seconds(child: Child) -> float:
    times = child.processes[0].cpu_times()
    return float(times.user + times.system)


async def bursts(at_once: Callable[[range], Awaitable[None]]) -> None:
    """Say a hundred things at once, some times, with time enough in between for all to arrive."""
    for first in range(0, BURSTS * BURST, BURST):
        await at_once(range(first, first + BURST))
        await asyncio.sleep(REST)


async def paced(say: Say, count: int, rate: float) -> None:
    """Say one thing after the other, so many a second."""
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        await say(number)


def stamped(number: int) -> str:
    """Return what an event says: its number, and the moment."""
    return f"{number} {time.monotonic()!r}"


async def started(hermes: Hermes, session: str) -> Task:
    """Return a task of the session that is ours: there is no worker."""
    handle = await hermes.session(session).dispatch("noop")
    task = await hermes.store.claim(handle.id, "benchmark", 3600.0)
    assert task is not None
    return task


def speaker(hermes: Hermes, task: Task, padding: str = "") -> Say:
    """Return what appends a progress event of the task, made longer by the padding."""

    async def say(number: int) -> None:
        news = Progress(message=f"{stamped(number)} {padding}")
        event = task_event(task, "task.progress", news, n=f"{time.monotonic_ns()}")
        assert await hermes.journal.append(event)

    return say


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    clients, count = (QUICK_CLIENTS, QUICK_PACED) if quick else (CLIENTS, PACED)
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.manager", str(port)]
    with relay_on(stage) as (relay, url), stage.child("manager", argv) as plain:
        plain.wait_until(lambda: manager.READY in plain.said)
        plain_url = f"http://127.0.0.1:{port}"

        def ours() -> Sample:
            with paused(plain):
                return asyncio.run(_ours(stage, relay, url, clients, count))

        def theirs() -> Sample:
            with paused(relay):
                return asyncio.run(_theirs(stage, plain, plain_url, clients, count))

        yield Sides(ours, theirs)


async def _ours(stage: Stage, relay: Child, url: str, clients: int, count: int) -> Sample:
    stage.flush()
    token = mint(stage.secret, sub="benchmark", sessions="*", ttl=3600)
    async with connect(stage.settings) as hermes:
        say = speaker(hermes, await started(hermes, "hall"))

        async def at_once(numbers: range) -> None:
            await asyncio.gather(*map(say, numbers))

        said = BURSTS * BURST
        first = Audience(url, clients, ["hall"], said, PATIENCE, after=2, token=token)
        second = Audience(url, clients, ["hall"], count, PATIENCE, after=2 + said, token=token)
        return _sample(
            clients,
            count,
            await audience(stage, relay, first, lambda: bursts(at_once)),
            await audience(stage, relay, second, lambda: paced(say, count, RATE)),
        )


async def _theirs(stage: Stage, server: Child, url: str, clients: int, count: int) -> Sample:
    emitter: Any = socketio.AsyncRedisManager(f"{stage.env['BENCH_REDIS']}/3", write_only=True)

    async def say(number: int) -> None:
        await emitter.emit("event", {**LIKE, "data": {"message": stamped(number)}}, "/", room="hall")

    async def at_once(numbers: range) -> None:
        for number in numbers:  # one after the other: else they change places
            await say(number)

    first = Audience(url, clients, ["hall"], BURSTS * BURST, PATIENCE)
    second = Audience(url, clients, ["hall"], count, PATIENCE)
    return _sample(
        clients,
        count,
        await audience(stage, server, first, lambda: bursts(at_once)),
        await audience(stage, server, second, lambda: paced(say, count, RATE)),
    )


def _sample(clients: int, count: int, burst: dict[str, float], paced: dict[str, float]) -> Sample:
    return {
        "burst": 1000 * burst["p50"],
        "burst99": 1000 * burst["p99"],
        "burst_cpu": 1e6 * burst["cpu"] / (clients * BURSTS * BURST),
        "paced": 1000 * paced["p50"],
        "paced99": 1000 * paced["p99"],
        "paced_cpu": 1e6 * paced["cpu"] / (clients * count),
        "faults": burst["lost"] + burst["astray"] + paced["lost"] + paced["astray"],
    }


FIGURE = Figure(
    "fanout",
    [
        Row("burst", "100 events at once → 100 clients, p50", "ms", Goal("≤", 0.1, 0.05, of="ratio")),
        Row("burst99", "  p99", "ms"),
        Row("burst_cpu", "  server, per event and client", "µs"),
        Row("paced", "20 events a second → 100 clients, p50", "ms", Goal("≤", 1.2, of="ratio")),
        Row("paced99", "  p99", "ms"),
        Row("paced_cpu", "  server, per event and client", "µs"),
        Row("faults", "  lost or out of order", "", Goal("=", 0)),
    ],
    _open,
)
