"""Handlers of a session's events in this process: called one at a time, in the order of the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from inspect import isawaitable
from typing import Any

from hermes_async.core.ending import end
from hermes_async.core.feed import ASK_AGAIN, Feed
from hermes_async.domain.errors import Closed, InvalidInput, StoreDamaged, StoreUnavailable, did_you_mean
from hermes_async.domain.events import CLASSES, AnyEvent
from hermes_async.domain.gap import Gap

logger = logging.getLogger("hermes.listeners")

#: A `def` or an `async def` that is given an event, or a gap if it asks for those.
Handler = Callable[[Any], object]
_TYPES = (*CLASSES, "gap")


@dataclass(frozen=True, eq=False)
class _Listener:
    """One handler, and what it wants to hear: events of these types, beyond a `seq`."""

    types: str
    handler: Handler
    after: int

    async def hear(self, item: AnyEvent | Gap) -> None:
        """Call the handler if the item is for it; what it raises is logged."""
        if item.seq <= self.after or not fnmatchcase(item.type, self.types):
            return
        try:
            answer = self.handler(item)
            if isawaitable(answer):
                await answer
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and _is_cancelled():
                raise
            logger.exception("a handler of %s failed at #%d %s", self.types, item.seq, item.type)


def _is_cancelled() -> bool:
    """Tell whether we are meant, or the handler awaited something that was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Listeners:
    """The handlers of all sessions that this process listens to."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._bands: dict[str, _Band] = {}

    async def add(self, session_id: str, types: str, handler: Handler) -> Callable[[], None]:
        """Call a handler with what the session logs from now on; return what ends that.

        Raises:
            InvalidInput: there is no such type of event.
        """
        if not any(fnmatchcase(type_, types) for type_ in _TYPES):
            raise InvalidInput(f"no event is called {types!r}{did_you_mean(types, _TYPES)}")
        listener = _Listener(types, handler, await self._feed.store.last_seq(session_id))
        band = self._bands.get(session_id)
        if band is None or band.task.done():
            band = self._bands[session_id] = _Band(self._feed, session_id, listener)
        else:
            band.listeners.append(listener)
        return partial(self._remove, session_id, band, listener)

    async def close(self) -> None:
        """Stop them all, also in the middle of a call."""
        tasks = [band.task for band in self._bands.values()]
        self._bands.clear()
        await end(*tasks)

    def _remove(self, session_id: str, band: _Band, listener: _Listener) -> None:
        band.remove(listener)
        if not band.listeners and self._bands.get(session_id) is band:
            del self._bands[session_id]


class _Band:
    """The listeners of one session, and the task that calls them."""

    def __init__(self, feed: Feed, session_id: str, first: _Listener) -> None:
        self.listeners = [first]
        self._feed = feed
        self._session_id = session_id
        self._after = first.after
        #: A call is under way, which is let to its end.
        self._calling = False
        self.task = asyncio.create_task(self._run(), name=f"hermes-listeners {session_id}")

    def remove(self, listener: _Listener) -> None:
        """Call it no more; the last one ends the task."""
        if listener in self.listeners:
            self.listeners.remove(listener)
        if not self.listeners and not self._calling:
            self.task.cancel()

    async def _run(self) -> None:
        while self.listeners:
            try:
                await self._follow()
                return
            except StoreUnavailable as exc:  # it cannot be listened to yet
                self._feed.outage.began(exc)
                await asyncio.sleep(ASK_AGAIN)
            except Closed:  # before it began to listen
                return
            except StoreDamaged as exc:
                logger.error("handlers of session %s hear nothing any more: %s", self._session_id, exc)
                return

    async def _follow(self) -> None:
        async for item in self._feed.events(self._session_id, self._after):
            self._after = item.seq
            await self._tell(item)
            if not self.listeners:
                return

    async def _tell(self, item: AnyEvent | Gap) -> None:
        self._calling = True
        try:
            for listener in [*self.listeners]:
                if listener in self.listeners:  # one before it may have taken it away
                    await listener.hear(item)
        finally:
            self._calling = False
