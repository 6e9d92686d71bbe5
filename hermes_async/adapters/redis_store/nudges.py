"""Redis' pub/sub as nudges: one connection for all the sessions that a process listens to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hermes_async.adapters.redis_store.channels import Channels
from hermes_async.adapters.redis_store.connection import client_for
from hermes_async.adapters.redis_store.meaning import unavailable
from hermes_async.core.ending import end
from hermes_async.core.home import Home
from hermes_async.core.outage import Outage
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.urls import masked

logger = logging.getLogger("hermes.nudges")

#: Seconds between two tries to listen again.
AGAIN = 0.5
#: Seconds without any message after which the server is asked whether it is there.
SILENCE = 2.0
#: Events that a listener is kept for who does not come for them; whoever is slower reads the log.
KEPT = 1_000

#: Returns the event that a nudge has brought; None: it has brought none.
Read = Callable[[str], AnyEvent | None]


class _Hint:
    def __init__(self, read: Read | None) -> None:
        self._read = read
        self._event = asyncio.Event()
        #: What was brought since the last wait; None: something was not, so it has to be looked for.
        self._brought: list[AnyEvent] | None = []
        self._was_cut_off = False

    def tell(self, message: str | None) -> None:
        """Pass a nudge on; None: there may have been others, which nobody has heard."""
        self._was_cut_off = self._was_cut_off or message is None
        event = self._event_in(message) if message else None
        if event is None or self._brought is None or len(self._brought) == KEPT:
            self._brought = None
        else:
            self._brought.append(event)
        self._event.set()

    def _event_in(self, message: str) -> AnyEvent | None:
        try:
            return self._read(message) if self._read else None
        except Exception:  # it costs the other sessions nothing: whoever reads the log finds out
            return None

    async def wait(self, timeout: float) -> Sequence[AnyEvent] | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()
        brought, self._brought = self._brought or (), []
        cut_off, self._was_cut_off = self._was_cut_off, False
        return None if cut_off else brought


class RedisNudges:
    """Listens to channels; what was said while the connection was away is lost, and need not matter.

    Args:
        url: where Redis is.
        home: who may listen.
    """

    def __init__(self, url: str, home: Home) -> None:
        self._home = home
        self._where = masked(url)
        self._client = client_for(url, retries=False)
        self._connection: Connection | None = None
        self._channels: Channels | None = None
        #: There was a time without a connection: nobody knows who would have been nudged.
        self._has_missed = False
        #: By channel, one for each listener: what one has heard, the others hear, too.
        self._hints: dict[str, set[_Hint]] = {}
        #: Held by whoever may find that there is no connection.
        self._connecting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listen(self, channel: str, read: Read | None = None) -> AsyncIterator[_Hint]:
        """Hear what is published on a channel, from now on.

        Args:
            channel: its name.
            read: finds the event in a nudge.

        Raises:
            StoreUnavailable: Redis cannot be reached.
            UserError: somebody listens from elsewhere than at first, or it was closed.
        """
        self._home.loop()
        hint, listeners = _Hint(read), self._hints.setdefault(channel, set())
        listeners.add(hint)
        try:
            await self._subscribe(channel)
            yield hint
        finally:
            listeners.discard(hint)
            if not listeners:
                del self._hints[channel]
                if self._channels is not None:
                    self._channels.unsubscribe(channel)

    async def close(self) -> None:
        """Stop listening."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await end(keeper)
        connection, self._connection, self._channels = self._connection, None, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
        await self._client.aclose()

    async def _subscribe(self, channel: str) -> None:
        try:
            try:
                await (await self._connected()).subscribe(channel)
            except RedisConnectionError:  # it was closed while it was idle
                await (await self._connected()).subscribe(channel)
        except (RedisError, OSError) as exc:
            raise unavailable(exc, self._where) from exc
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="hermes-nudges")

    async def _connected(self) -> Channels:
        """Return a connection that is subscribed to every channel that somebody listens to."""
        async with self._connecting:
            if self._channels is None or not self._channels.is_open:
                self._has_missed = self._has_missed or self._channels is not None
                self._channels = None
                if self._connection is None:
                    self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()
                channels = Channels(self._connection, self._tell)
                await asyncio.gather(*map(channels.subscribe, [*self._hints]))
                self._channels = channels
                for channel in self._hints if self._has_missed else ():
                    self._tell(channel, None)
                self._has_missed = False
            return self._channels

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost."""
        outage = Outage(logger, "listening for news")
        while True:
            try:
                channels = await self._connected()
                outage.ended()
                await channels.last(SILENCE)
            except (RedisError, OSError) as exc:
                outage.began(unavailable(exc, self._where))
            await asyncio.sleep(AGAIN)

    def _tell(self, channel: str, message: str | None) -> None:
        for hint in self._hints.get(channel, ()):
            hint.tell(message)
