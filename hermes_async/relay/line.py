"""One connected socket: what it may hear, what it listens to, and the one batch that may be under way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hermes_async.core.ending import end
from hermes_async.domain.errors import StoreUnavailable, UserError
from hermes_async.relay.auth import Grant
from hermes_async.relay.tail import Portion, Tail, Topic
from hermes_async.relay.window import Window, Windows
from hermes_async.relay.wire import EXPIRED

logger = logging.getLogger("hermes.relay")

#: Seconds between two tries to read from a store that is away.
RETRY_EVERY = 0.5


@dataclass(frozen=True)
class Limits:
    """What one socket may ask for, and how many of them there may be."""

    #: Websockets of the relay, and from one address.
    connections: int = 10_000
    per_address: int = 1_000

    #: Topics at once.
    subscriptions: int = 32
    #: Commands a second, and at once; more are not refused but wait, and so do those who send them.
    commands: float = 20.0
    #: Seconds within which a batch must be acknowledged, or taken from an event stream.
    ack_timeout: float = 20.0


class TooMany(UserError):
    """A socket asked for more than its limits allow."""


class Peer(Protocol):
    """How a line reaches its client."""

    async def send(self, batch: str, acknowledged: Callable[[], None]) -> None:
        """Send a batch (JSON) and have `acknowledged` called when the client says that it has it."""
        ...

    def hang_up(self, why: str, last_word: str | None = None) -> None:
        """Close the socket soon, after an event that says why."""
        ...


class Line:
    """A socket's subscriptions. They take turns: a batch must be acknowledged before the next is read."""

    def __init__(self, windows: Windows, grant: Grant, limits: Limits, peer: Peer) -> None:
        self.grant = grant
        self._windows = windows
        self._limits = limits
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()  # held from the reading of a batch to its acknowledgement
        self._pumps: dict[Topic, asyncio.Task[None]] = {}
        self._next_command = 0.0
        self._overdue: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._expiry = self._loop.call_later(grant.expires_at - time.time(), self._expire)

    @property
    def subscriptions(self) -> int:
        """How many topics are sent."""
        return len(self._pumps)

    @property
    def unacknowledged_for(self) -> float:
        """For how many seconds its client has not acknowledged what was sent."""
        return 0.0 if self._overdue is None else self._loop.time() - self._sent_at

    async def pace(self) -> None:
        """Wait until the socket may give its next command."""
        now = self._loop.time()
        self._next_command = max(self._next_command, now - 1.0) + 1.0 / self._limits.commands
        if self._next_command > now:
            await asyncio.sleep(self._next_command - now)

    def check_room(self, *, wanted: Topic | None = None) -> None:
        """Raise TooMany when there is no room for one more subscription."""
        if wanted not in self._pumps and len(self._pumps) >= self._limits.subscriptions:
            raise TooMany(
                f"a socket can hold {self._limits.subscriptions} subscriptions: give one up, or open another"
            )

    def subscribe(self, topic: Topic, after: int) -> None:
        """Begin to send a topic's events with a `seq` beyond `after`; one that is sent already goes on.

        Raises:
            TooMany: the limit is reached.
        """
        self.check_room(wanted=topic)
        if topic not in self._pumps:
            pump = self._pump(Tail(self._windows.store, topic, after))
            self._pumps[topic] = asyncio.create_task(pump, name=f"hermes-relay {topic}")

    def unsubscribe(self, session_id: str | None, task_id: str | None) -> None:
        """Stop sending a session's events (not those of its tasks), or a task's."""
        for topic, pump in list(self._pumps.items()):
            if topic.task_id == task_id and (task_id is not None or topic.session_id == session_id):
                del self._pumps[topic]
                pump.cancel()

    async def close(self) -> None:
        """Stop everything that belongs to the socket."""
        pumps = list(self._pumps.values())
        self._pumps.clear()
        self._expiry.cancel()
        if self._overdue is not None:
            self._overdue.cancel()
        await end(*pumps)

    async def _pump(self, tail: Tail) -> None:
        try:
            while not tail.ended:
                await self._stream_patiently(tail)
        except Exception:
            logger.exception("cannot go on with %s", tail.topic)
            self.peer.hang_up("an error of the relay")
        finally:
            if self._pumps.get(tail.topic) is asyncio.current_task():
                del self._pumps[tail.topic]

    async def _stream_patiently(self, tail: Tail) -> None:
        try:
            await self._stream(tail)
        except StoreUnavailable as exc:
            self._windows.outage.began(exc)
            await asyncio.sleep(RETRY_EVERY)

    async def _stream(self, tail: Tail) -> None:
        async with self._windows.over(tail.topic.session_id, tail) as window:
            while not tail.ended:
                batch = await self._take_turn(tail, window)
                if batch is not None:
                    await self._send(batch)
                if tail.caught_up and not tail.ended:
                    await window.reader.beyond(tail.known)

    async def _take_turn(self, tail: Tail, window: Window) -> Portion | None:
        """Return the next batch and keep the turn for it, or return None and give it up."""
        await self._turn.acquire()
        batch = None
        try:
            batch = await tail.next(window.reader.seq, window)
        finally:
            if batch is None:
                self._turn.release()
        return batch

    async def _send(self, batch: Portion) -> None:
        self._sent_at = self._loop.time()
        self._overdue = self._loop.call_later(
            self._limits.ack_timeout, self.peer.hang_up, "it did not acknowledge a batch in time"
        )
        await self.peer.send(batch.text(), self._acknowledged)

    def _acknowledged(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._turn.release()

    def _expire(self) -> None:
        self.peer.hang_up("its token has expired", EXPIRED)
