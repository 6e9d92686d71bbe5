"""Listening: one reader per session and process, however many handles and loops wait for its news."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import anyio

from hermes_async.core.lookout import Lookout
from hermes_async.core.outage import Outage
from hermes_async.core.page import Page
from hermes_async.core.ports import Store
from hermes_async.domain.errors import Closed, StoreDamaged, StoreUnavailable
from hermes_async.domain.events import UNREADABLE, AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TERMINAL_TYPES

logger = logging.getLogger("hermes.feed")

T = TypeVar("T")

#: Seconds after which a reader looks without having been nudged: a nudge may be lost.
LOOK_EVERY = 2.0
#: Seconds after which a store is asked again that was away.
ASK_AGAIN = 0.25
#: Events per read.
PAGE = 500


class Feed:
    """The sessions that somebody in this process listens to.

    Args:
        store: where the logs are.
        linger: seconds that a reader outlives its last follower, for a parent that awaits task after task.
    """

    def __init__(self, store: Store, linger: float = 0.0) -> None:
        self.store = store
        self.linger = linger
        self.lookout = Lookout(store)
        self._readers: dict[str, Reader] = {}
        #: For all sessions, of which there may be thousands.
        self.outage = Outage(logger, "reading sessions")

    @asynccontextmanager
    async def follow(self, session_id: str) -> AsyncIterator[Reader]:
        """Keep the session's reader alive while somebody is interested, and a little longer.

        Raises:
            StoreUnavailable: it cannot be listened to.
            UserError: somebody asks from elsewhere than at first, or it was closed.
        """
        self.store.home.loop()
        reader = self._readers.get(session_id)
        if reader is None or reader.has_stopped:
            reader = self._readers[session_id] = Reader(self.store, session_id, self.outage)
        reader.followers += 1
        try:
            await reader.ready()
            self.outage.ended()
            yield reader
        finally:
            reader.followers -= 1
            if self.linger:
                asyncio.get_running_loop().call_later(self.linger, self._let_go, session_id, reader)
            elif self._let_go(session_id, reader):
                await reader.stop()

    def expect(self, session_id: str, task_id: str) -> End | None:
        """Await the end of a task that is not written yet; None: nobody follows its session now."""
        reader = self._readers.get(session_id)
        return reader.end_of(task_id) if reader is not None and reader.is_reading else None

    def _let_go(self, session_id: str, reader: Reader) -> bool:
        """Stop a reader that nobody follows; return False when somebody does, or it was stopped before."""
        if reader.followers or self._readers.get(session_id) is not reader:
            return False
        del self._readers[session_id]
        reader.cancel()
        return True

    async def pages(self, session_id: str, after: int) -> AsyncGenerator[Page, None]:
        """Yield the session's log after `seq`, then what is added, for ever; an empty page: all is read.

        A store that is away is waited for, once it could be listened to.
        """
        async with self.follow(session_id) as reader:
            while True:
                seen = reader.seq
                page = await reader.patiently(partial(self.store.events, session_id, after, PAGE))
                yield page
                if page.events:
                    after = page.events[-1].seq
                else:
                    await reader.beyond(max(after, seen))

    async def events(self, session_id: str, after: int) -> AsyncIterator[AnyEvent | Gap]:
        """Yield the session's events after `seq`, then what comes, until the end; a gap for what is gone."""
        self.store.home.loop()
        with suppress(Closed):  # while we wait: that is the end
            async for page in self.pages(session_id, after):
                if page.gap is not None:
                    async with self.follow(session_id) as reader:
                        snapshot = await reader.patiently(partial(self.store.snapshot, session_id))
                    yield Gap.of(page.gap, snapshot.seq, snapshot.tasks)
                for event in page.events:
                    yield event

    async def entries(
        self, session_id: str, coalesce: float = 0.0, limit: int = PAGE
    ) -> AsyncIterator[Sequence[AnyEvent]]:
        """Yield what lies in the session's inbox, oldest first, then what arrives, until the end.

        It comes as soon as there are `limit` entries, or the first has been known for `coalesce` seconds.
        """
        self.store.home.loop()
        found: list[AnyEvent] = []
        after, due = 0, math.inf
        with suppress(Closed):  # while we wait: that is the end
            async with self.follow(session_id) as reader:
                restored = reader.restored
                while True:
                    if restored != reader.restored:  # what lies there has numbers of before, and may be new
                        restored, after = reader.restored, 0
                    seen = reader.seq
                    room = limit - len(found)
                    news = await reader.patiently(partial(self.store.inbox, session_id, after, room))
                    if news:
                        due = due if found else time.monotonic() + coalesce
                        found, after = [*found, *news], news[-1].seq
                    if len(found) == limit or time.monotonic() >= due:
                        yield found
                        found, due = [], math.inf
                    else:
                        with anyio.move_on_after(due - time.monotonic()):
                            await reader.beyond(max(after, seen))

    async def close(self) -> None:
        """Stop every reader."""
        readers = list(self._readers.values())
        self._readers.clear()
        for reader in readers:  # also if we are cancelled
            reader.cancel()
        for reader in readers:
            await reader.stop()
        await self.lookout.close()


class End:
    """The end of a task that somebody waits for."""

    __slots__ = ("__weakref__", "event", "seen")

    def __init__(self) -> None:
        #: Set when it has been read, or may be hidden in a gap: then there is no event.
        self.seen = asyncio.Event()
        self.event: AnyEvent | None = None

    def tell(self, event: AnyEvent | None) -> None:
        """Wake who waits."""
        self.event = event
        self.seen.set()


class Reader:
    """Follows one session's log and tells its followers how far the log has come."""

    def __init__(self, store: Store, session_id: str, outage: Outage) -> None:
        self._outage = outage
        self.followers = 0
        self.seq = 0
        #: Called with each page that is read, before anybody is woken.
        self.listeners: list[Callable[[Page], None]] = []
        self._store = store
        self._session_id = session_id
        #: How often the log had lost what it said: what was read of the inbox may not be what is there.
        self.restored = 0
        self._stops = False
        #: Of the last event that was read; empty: none was.
        self._last_id = ""
        #: The log may have lost something.
        self._doubts = False
        #: Those that somebody still waits for.
        self._ends: WeakValueDictionary[str, End] = WeakValueDictionary()
        self._moved = asyncio.Event()
        self._first = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"hermes-feed {session_id}")
        self._task.add_done_callback(self._wake_all)

    async def ready(self) -> None:
        """Wait for the first look."""
        await self.told(self._first)

    async def beyond(self, seq: int) -> None:
        """Wait until the log has gone beyond `seq`."""
        while self.seq <= seq:
            await self.told(self._moved)

    def end_of(self, task_id: str) -> End:
        """Return what tells when the task ends from now on, or may have."""
        end = self._ends.get(task_id)
        if end is None:
            end = self._ends[task_id] = End()
        return end

    async def told(self, event: asyncio.Event) -> None:
        """Wait for one of this reader's events.

        Raises:
            Closed: the reader was stopped.
            StoreUnavailable: it could not begin.
            StoreDamaged: the log cannot be read, also by the next reader.
        """
        await event.wait()
        self._check()

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read from the store; while it is away, wait.

        Raises:
            Closed, StoreUnavailable, StoreDamaged: the reader has stopped, as `told` says.
        """
        while True:
            try:
                return await read()
            except StoreUnavailable:
                self._check()
            await asyncio.sleep(ASK_AGAIN)

    def _check(self) -> None:
        """Raise what has stopped the reader, if anything has."""
        if not self._task.done():
            return
        cause = None if self._task.cancelled() else self._task.exception()
        if cause is None or isinstance(cause, Closed):
            raise self._store.home.closed()
        kind = StoreDamaged if isinstance(cause, StoreDamaged) else StoreUnavailable
        raise kind(f"nobody listens to session {self._session_id}: {cause}") from cause

    @property
    def is_reading(self) -> bool:
        """True while nothing that is written from now on will be missed."""
        return self._first.is_set() and not self.has_stopped

    @property
    def has_stopped(self) -> bool:
        """True when it reads no more."""
        return self._task.done()

    def cancel(self) -> None:
        """Tell it to stop reading."""
        self._stops = True
        self._task.cancel()

    async def stop(self) -> None:
        """Stop reading, and wait until it has."""
        while not self._task.done():  # a store may swallow a cancellation
            self.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    async def _run(self) -> None:
        async with self._store.watch(self._session_id) as hint:
            seq, self._last_id = await self._store.head(self._session_id)
            self._advance(seq)
            self._first.set()
            while not self._stops:
                brought = await hint.wait(LOOK_EVERY)
                if not self._take(brought or ()):
                    # Nobody listened for a while, or somebody writes what is long known: is it the same log?
                    self._doubts |= brought is None or bool(brought and brought[-1].seq <= self.seq)
                    await self._look()

    def _take(self, brought: Sequence[AnyEvent]) -> bool:
        """Tell what the nudges have brought, if it is what comes next; False: the log has to be read."""
        if not brought or any(event.seq != seq for seq, event in enumerate(brought, self.seq + 1)):
            return False
        self._tell(Page(brought, None))
        return True

    async def _look(self) -> None:
        try:
            await self._read()
            self._outage.ended()
        except StoreUnavailable as exc:  # it comes back; whoever waits goes on waiting
            self._outage.began(exc)

    async def _read(self) -> None:
        if self._doubts:
            await self._store.resume(self._session_id, self.seq, self._last_id)
            self._doubts = False
        while True:
            page = await self._store.events(self._session_id, self.seq, PAGE)
            if page.events:
                self._tell(page)
            if len(page.events) < PAGE and not page.is_cut:  # of what comes from now on, a nudge will tell
                return

    def _tell(self, page: Page) -> None:
        for listener in self.listeners:
            listener(page)
        for event in page.events:
            if event.type in TERMINAL_TYPES and (end := self._ends.get(event.task_id or "")):
                end.tell(event)
            elif event.type == UNREADABLE and (end := self._ends.pop(event.task_id or "", None)):
                end.tell(None)
        if page.gap:  # an end may hide in it: let everybody look
            for end in [*self._ends.values()]:
                end.tell(None)
            self._ends.clear()
        self.restored += sum(event.type == "session.restored" for event in page.events)
        self._last_id = page.events[-1].id
        self._advance(page.events[-1].seq)

    def _advance(self, seq: int) -> None:
        if seq > self.seq:
            self.seq = seq
            self._moved.set()
            self._moved = asyncio.Event()

    def _wake_all(self, _: asyncio.Task[None]) -> None:
        for event in (self._first, self._moved, *(end.seen for end in self._ends.values())):
            event.set()
