"""How soon an event is with a client of the relay, and whether a flood arrives whole and in order."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, NamedTuple, cast

from benchmarks.children import Child
from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.domain.events import AnyEvent, task_event
from hermes_async.domain.gap import Gap
from hermes_async.domain.task import Progress, Task
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient

#: Events of the paced part and of the flood.
PACED, FLOOD = 500, 1_000
QUICK_PACED, QUICK_FLOOD = 100, 200
#: Paced events a second.
RATE = 100.0
#: Seconds for one part of a run.
PATIENCE = 30.0
Events = AsyncGenerator[AnyEvent | Gap]

#: A relay on any free port.
RELAY_ARGV = [sys.executable, "-m", "hermes_async.cli", "relay", "--port", "0"]
_WHERE = re.compile(r"relay on (http://\S+)")


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    paced, flood = (QUICK_PACED, QUICK_FLOOD) if quick else (PACED, FLOOD)
    with stage.child("relay", RELAY_ARGV) as relay:
        url = relay_url(relay)
        yield Sides(lambda: asyncio.run(_hermes(stage, url, paced, flood)))


def relay_url(relay: Child) -> str:
    """Wait until a relay listens, and return where."""
    relay.wait_until(lambda: _WHERE.search(relay.said) is not None)
    found = _WHERE.search(relay.said)
    assert found is not None
    return found[1]


async def _hermes(stage: Stage, url: str, paced: int, flood: int) -> Sample:
    stage.flush()  # what another figure has left would go first
    async with connect(stage.settings) as hermes, asyncio.timeout(3 * PATIENCE):
        handle = await hermes.session().dispatch("noop")  # without a worker: it is ours
        task = await hermes.store.claim(handle.id, "benchmark", 3600.0)
        assert task is not None
        token = mint(stage.secret, sub="benchmark", sessions=[task.session_id], ttl=3600)
        async with RelayClient(url, token) as client:
            following = client.follow(session=task.session_id)
            async with aclosing(cast("Events", following)) as events:
                for _ in range(2):  # queued and started: from here on we are connected
                    await anext(events)
                speaker = Speaker(hermes, task)
                return {
                    **await _paced(speaker, events, paced),
                    **await _flood(speaker, events, flood),
                }


class Heard(NamedTuple):
    """An event as the client has it."""

    ordinal: int
    delay: float

    @classmethod
    def of(cls, event: AnyEvent | Gap, moment: float) -> Heard:
        """Return what matters of an event; a gap would be a fault."""
        if isinstance(event, Gap) or event.type != "task.progress":
            return cls(-1, 0.0)
        return cls(event.ordinal, moment - float(event.data.message))


class Speaker:
    """Appends progress events of one claimed task, each telling when it was appended."""

    def __init__(self, hermes: Hermes, task: Task) -> None:
        self._hermes = hermes
        self._task = task
        #: How many events there are.
        self.said = 0

    async def say(self) -> None:
        """Append one event."""
        self.said += 1
        news = Progress(message=repr(time.monotonic()))
        event = task_event(self._task, "task.progress", news, n=self.said)
        assert await self._hermes.journal.append(event)


async def _paced(speaker: Speaker, events: Events, count: int) -> Sample:
    async def speak() -> None:
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            await speaker.say()

    heard = await _heard(events, count, speak())
    delays = [one.delay for one in heard]
    return {"p50": 1000 * percentile(delays, 50), "p99": 1000 * percentile(delays, 99)}


async def _flood(speaker: Speaker, events: Events, count: int) -> Sample:
    async def speak() -> None:
        await asyncio.gather(*(speaker.say() for _ in range(count)))

    first, began = speaker.said + 1, time.monotonic()
    heard = await _heard(events, count, speak())
    lost = count - len(heard)
    astray = sum(one.ordinal != first + place for place, one in enumerate(heard))
    return {"flood": time.monotonic() - began, "faults": lost + astray}


async def _heard(events: Events, count: int, speaking: Coroutine[Any, Any, None]) -> list[Heard]:
    """Return the next `count` events, or as many as come in time, while they are being said."""
    heard: list[Heard] = []

    async def listen() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(heard) < count:
                    event = await anext(events)
                    heard.append(Heard.of(event, time.monotonic()))

    async with asyncio.TaskGroup() as both:
        both.create_task(listen())
        both.create_task(speaking)
    return heard


FIGURE = Figure(
    "relay",
    [
        Row("p50", "event → client, 100 a second, p50", "ms", Goal("<", 10)),
        Row("p99", "event → client, 100 a second, p99", "ms"),
        Row("flood", "1,000 events at once: all there after", "s"),
        Row("faults", "  lost or out of order", "", Goal("=", 0)),
    ],
    _open,
)
