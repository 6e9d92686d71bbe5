"""What one relay on one core bears: many clients with a session each, a long log, and readers that stop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from benchmarks import listeners
from benchmarks.children import Child, paused
from benchmarks.fanout import Say, audience, paced, relay_on, speaker, started
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.listeners import Audience
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.domain.task import Lane
from hermes_async.relay.auth import mint

#: Clients with a session each, the events a second of every session, and how many of them.
CLIENTS, RATE, COUNT = 200, 10.0, 100
QUICK_CLIENTS, QUICK_COUNT = 20, 10
#: Events of the log that is replayed to one client.
REPLAY, QUICK_REPLAY = 9_000, 500
#: Readers that stop, and the events (2 kB each) that are said meanwhile.
STOPPED, SAID = 50, 2_000
QUICK_STOPPED, QUICK_SAID = 5, 200
PADDING = "x" * 2_000
#: Seconds for one part of a run, and for the relay to have hung up on all who do not read.
PATIENCE, EVICTED = 60.0, 40.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    with relay_on(stage) as (relay, url):
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(relay.processes[0].pid, {min(os.sched_getaffinity(0))})
        yield Sides(lambda: asyncio.run(_run(_Place(stage, relay, url), quick)))


class _Place:
    """Where it happens."""

    def __init__(self, stage: Stage, relay: Child, url: str) -> None:
        self.stage = stage
        self.relay = relay
        self.url = url
        self.token = mint(stage.secret, sub="benchmark", sessions="*", ttl=3600)

    def audience(self, clients: int, sessions: list[str], expected: int) -> Audience:
        """Return clients that hear what is said after the tasks have started."""
        return Audience(self.url, clients, sessions, expected, PATIENCE, after=2, token=self.token)

    @asynccontextmanager
    async def hermes(self) -> AsyncIterator[Hermes]:
        """Begin with an empty Redis."""
        self.stage.flush()
        async with connect(self.stage.settings) as hermes:
            await hermes.store.enlist("benchmark", Lane.ASYNC, 10_000, 3600.0)
            yield hermes


async def _run(place: _Place, quick: bool) -> Sample:
    return {
        **await (_crowd(place, QUICK_CLIENTS, QUICK_COUNT) if quick else _crowd(place, CLIENTS, COUNT)),
        **await _replay(place, QUICK_REPLAY if quick else REPLAY),
        **await (_stopped(place, QUICK_STOPPED, QUICK_SAID) if quick else _stopped(place, STOPPED, SAID)),
    }


async def _crowd(place: _Place, clients: int, count: int) -> Sample:
    sessions = [f"crowd-{number}" for number in range(clients)]
    async with place.hermes() as hermes:
        says = [speaker(hermes, await started(hermes, session)) for session in sessions]

        async def speak() -> None:
            await asyncio.gather(*(_later(say, count, n / clients) for n, say in enumerate(says)))

        began = time.monotonic()
        heard = await audience(place.stage, place.relay, place.audience(clients, sessions, count), speak)
    return {
        "p50": 1000 * heard["p50"],
        "p99": 1000 * heard["p99"],
        "cpu": 1e6 * heard["cpu"] / (clients * count),
        "core": 100 * heard["cpu"] / min(count / RATE, time.monotonic() - began),
        "faults": heard["lost"] + heard["astray"],
    }


async def _later(say: Say, count: int, place: float) -> None:
    """Say things evenly, and not in the same moment as the other sessions."""
    await asyncio.sleep(place / RATE)
    await paced(say, count, RATE)


async def _replay(place: _Place, count: int) -> Sample:
    async with place.hermes() as hermes:
        say = speaker(hermes, await started(hermes, "long"))
        for first in range(0, count, 500):
            await asyncio.gather(*map(say, range(first, min(count, first + 500))))
        wanted = place.audience(1, ["long"], count)
        heard = await audience(place.stage, place.relay, wanted, partial(asyncio.sleep, 0))
    return {"replay": count / heard["wall"], "replay_faults": heard["lost"] + heard["astray"]}


async def _stopped(place: _Place, clients: int, count: int) -> Sample:
    async with place.hermes() as hermes:
        say = speaker(hermes, await started(hermes, "deaf"), PADDING)
        wanted = place.audience(clients, ["deaf"], count)
        with place.stage.child("stopped", wanted.argv()) as child:
            await asyncio.to_thread(child.wait_until, lambda: listeners.READY in child.said)
            before, connected = place.relay.memory or 0.0, _connections(place.relay)
            with paused(child):
                began, largest = time.monotonic(), before
                speaking = asyncio.create_task(_flood(say, count))
                while _connections(place.relay) > connected - clients:
                    assert time.monotonic() - began < EVICTED, "somebody is still connected"
                    await asyncio.sleep(0.2)
                    largest = max(largest, place.relay.memory or 0.0)
                evicted = time.monotonic() - began
                await speaking
        heard = await audience(place.stage, place.relay, wanted, partial(asyncio.sleep, 0))
    return {
        "stopped": (largest - before) / 1e6,
        "evicted": evicted,
        "resumed_faults": heard["lost"] + heard["astray"],
    }


async def _flood(say: Say, count: int) -> None:
    for first in range(0, count, 100):
        await asyncio.gather(*map(say, range(first, first + 100)))
        await asyncio.sleep(0.05)


def _connections(relay: Child) -> int:
    return len(relay.processes[0].net_connections("tcp"))


FIGURE = Figure(
    "crowd",
    [
        Row("p50", "200 clients x 10 events a second, p50", "ms"),
        Row("p99", "  p99", "ms", Goal("<", 250)),
        Row("cpu", "  relay, per event", "µs"),
        Row("core", "  relay, of its one core", "%"),
        Row("faults", "  lost or out of order", "", Goal("=", 0)),
        Row("replay", "9,000 events of a log → one client", "1/s", Goal("≥", 5_000)),
        Row("replay_faults", "  lost or out of order", "", Goal("=", 0)),
        Row("stopped", "50 readers stop: relay grows by", "MB", Goal("<", 50)),
        Row("evicted", "  all hung up after", "s"),
        Row("resumed_faults", "  lost or out of order afterwards", "", Goal("=", 0)),
    ],
    _open,
)
