"""A parent: it dispatches, listens on both ways, drains its inbox, and after a kill goes on from the ledger.

Run as `python -m tests.acceptance.faults.parents SEED SESSION ...`; SIGUSR1: dispatch no more, SIGTERM: end.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import HermesError, ServiceError
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient
from hermes_async.relay.secret import relay_secret
from hermes_async.settings import Settings
from tests.acceptance.faults.agents import POINTS
from tests.acceptance.faults.ledger import Ledger

#: Seconds between two tries, and between two dispatches on average.
AGAIN, PACE = 0.3, 0.4


def order(seed: str) -> tuple[str, dict[str, Any]]:
    """Return the subagent and the input that a key stands for: the same however often it is asked."""
    chance = random.Random(seed)
    agent = chance.choices(["work", "sync_work", "family", "narrow", "doomed"], [55, 15, 14, 15, 1])[0]
    given: dict[str, Any] = {"stamp": seed}
    if agent == "doomed":
        return agent, {**given, "point": chance.choice(POINTS)}
    longest = 0.5 if agent == "sync_work" else 3.0
    given["seconds"] = round(chance.uniform(0.0, longest), 3)
    if agent in ("work", "sync_work") and chance.random() < 0.1:
        given["failures"] = 1
    return agent, given


class Past:
    """What the ledger knows of a session."""

    def __init__(self, session_id: str, ledger: Ledger) -> None:
        self.unanswered: list[str] = []
        self.asked = 0
        self.seen: dict[str, int] = {"feed": 0, "relay": 0}
        for line in ledger.read():
            if line.session != session_id:
                continue
            if line.what == "asked":
                self.asked += 1
                self.unanswered.append(line.key)
            elif line.what == "accepted" and line.key in self.unanswered:
                self.unanswered.remove(line.key)
            elif line.what == "seen":
                self.seen[line.through] = line.seq


class Parent:
    """One chat."""

    def __init__(
        self, hermes: Hermes, settings: Settings, session_id: str, seed: str, ledger: Ledger
    ) -> None:
        self.session = hermes.session(session_id)
        self.quiet = asyncio.Event()
        self._ledger = ledger
        self._settings = settings
        self._seed = seed
        self._past = Past(session_id, ledger)
        self._cancels: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        """Do everything at once, for ever."""
        await asyncio.gather(
            self._dispatch(),
            self._for_ever(self._follow_feed),
            self._for_ever(self._follow_relay),
            self._for_ever(self._drain),
        )

    async def _dispatch(self) -> None:
        for key in self._past.unanswered:
            await self._submit(key)
        pace = random.Random()
        while not self.quiet.is_set():
            self._past.asked += 1
            key = f"{self._seed}/{self.session.id}/{self._past.asked}"
            self._ledger.write("asked", session=self.session.id, key=key)
            await self._submit(key)
            await asyncio.sleep(pace.uniform(0, 2 * PACE))

    async def _submit(self, key: str) -> None:
        """Ask until it is accepted: the key makes sure that it is done once."""
        agent, given = order(key)
        while True:
            began = time.monotonic()
            try:
                handle = await self.session.submit(agent, given, idempotency_key=key)
            except ServiceError as exc:
                took = time.monotonic() - began
                self._ledger.write("refused", session=self.session.id, seconds=took, why=str(exc))
                await asyncio.sleep(AGAIN)
                continue
            took, told = time.monotonic() - began, {"key": key, "agent": agent, "stamp": key}
            self._ledger.write("accepted", session=self.session.id, task=handle.id, seconds=took, **told)
            if random.Random(f"cancel {key}").random() < 0.05:
                self._cancels.add(asyncio.create_task(self._cancel(handle)))
            return

    async def _cancel(self, handle: Any) -> None:
        await asyncio.sleep(0.5)
        with suppress(HermesError):
            await handle.cancel()

    async def _for_ever(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(HermesError):  # a session that has no event yet is not known either
                await job()
            await asyncio.sleep(AGAIN)

    async def _follow_feed(self) -> None:
        await self._note(self.session.events(self._past.seen["feed"]), "feed")

    async def _follow_relay(self) -> None:
        token = mint(relay_secret(self._settings), sub="parent", sessions=[self.session.id], ttl=3600)
        async with RelayClient(self._settings.relay_url, token) as client:
            after = self._past.seen["relay"]
            await self._note(client.follow(session=self.session.id, after=after), "relay")

    async def _note(self, events: AsyncIterator[AnyEvent | Gap], through: str) -> None:
        async for event in events:
            if isinstance(event, Gap):
                self._ledger.write("gap", session=self.session.id, through=through)
                continue
            self._ledger.write(
                "seen",
                session=self.session.id,
                through=through,
                seq=event.seq,
                id=event.id,
                task=event.task_id,
            )
            self._past.seen[through] = event.seq

    async def _drain(self) -> None:
        async for delivery in self.session.inbox():
            event = delivery.event
            self._ledger.write(
                "delivered", session=self.session.id, seq=event.seq, type=event.type, task=event.task_id
            )
            if await delivery.ack():
                self._ledger.write("acked", session=self.session.id, seq=event.seq)


async def main(seed: str, *session_ids: str) -> None:
    ledger, settings = Ledger.of_process(), Settings.read()
    done, quiet = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    loop.add_signal_handler(signal.SIGUSR1, quiet.set)
    async with connect(settings) as hermes:
        parents = [Parent(hermes, settings, each, seed, ledger) for each in session_ids]
        for parent in parents:
            parent.quiet = quiet
        lives = asyncio.gather(*(parent.live() for parent in parents))
        print("parent of", *session_ids, flush=True)
        await asyncio.wait([lives, loop.create_task(done.wait())], return_when=asyncio.FIRST_COMPLETED)
        lives.cancel()
        with suppress(asyncio.CancelledError):
            await lives


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
