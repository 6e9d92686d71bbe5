"""The newest events of a session, read and encoded once for all sockets of a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from hermes_async.core.feed import Feed, Reader
from hermes_async.core.page import Page
from hermes_async.domain.events import AnyEvent

#: Events of one session that are kept, and their bytes; who is behind them reads from the store.
WINDOW_EVENTS = 512
WINDOW_BYTES = 512_000


class Told(NamedTuple):
    """An event, ready to be sent."""

    seq: int
    task_id: str | None
    type: str
    text: str
    #: Bytes of the text.
    size: int

    @classmethod
    def of(cls, event: AnyEvent) -> Told:
        """Return an event as JSON, with what must be known of it."""
        text = event.model_dump_json()
        return cls(event.seq, event.task_id, event.type, text, len(text.encode()))


class Follower(Protocol):
    """Whoever reads a session's log."""

    #: The `seq` up to which all was read.
    after: int


class Window:
    """What a session's reader has read lately, without a hole."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._told: list[Told] = []
        self._first = reader.seq + 1  # the `seq` of the first one
        self._bytes = 0
        reader.listeners.append(self._take)

    def since(self, after: int, limit: int) -> Sequence[Told] | None:
        """Return what follows `after`, or None when some of it is not here any more, or never was."""
        start = after + 1 - self._first
        return None if start < 0 else self._told[start : start + limit]

    def _take(self, page: Page) -> None:
        if page.events and page.events[0].seq != self._first + len(self._told):
            self._told, self._first, self._bytes = [], page.events[0].seq, 0
        told = [Told.of(event) for event in page.events]
        self._told += told
        self._bytes += sum(one.size for one in told)
        if (
            len(self._told) > 2 * WINDOW_EVENTS or self._bytes > 2 * WINDOW_BYTES
        ):  # now and then, not each time
            self._trim()

    def _trim(self) -> None:
        """Keep the newest that are allowed."""
        kept = size = 0
        for one in reversed(self._told[-WINDOW_EVENTS:]):
            if size + one.size > WINDOW_BYTES:
                break
            kept, size = kept + 1, size + one.size
        self._first += len(self._told) - kept
        self._told, self._bytes = self._told[len(self._told) - kept :], size


class Windows:
    """The windows of the sessions that a relay hosts; each is there while somebody looks through it."""

    def __init__(self, feed: Feed) -> None:
        self.store, self.outage = feed.store, feed.outage
        self._feed = feed
        #: A window lives as long as its reader, which holds it as a listener.
        self._windows: WeakValueDictionary[str, Window] = WeakValueDictionary()
        self._followers: dict[Follower, Reader] = {}

    def lag(self) -> int:
        """Return by how many events the slowest of those who look is behind the log."""
        behind = (reader.seq - follower.after for follower, reader in self._followers.items())
        return max(0, max(behind, default=0))

    @asynccontextmanager
    async def over(self, session_id: str, follower: Follower) -> AsyncIterator[Window]:
        """Keep the session's window open for a follower.

        Raises:
            StoreUnavailable: nobody can read the session.
        """
        async with self._feed.follow(session_id) as reader:
            window = self._windows.get(session_id)
            if window is None or window.reader is not reader:
                window = self._windows[session_id] = Window(reader)
            self._followers[follower] = reader
            try:
                yield window
            finally:
                del self._followers[follower]
