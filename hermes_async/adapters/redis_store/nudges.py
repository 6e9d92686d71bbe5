"""Redis' pub/sub as nudges: one connection for all the sessions that a process listens to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hermes_async.adapters.redis_store.connection import REPLY_TIMEOUT, client_for, shown
from hermes_async.adapters.redis_store.pipe import unavailable

logger = logging.getLogger("hermes.nudges")

#: Seconds between two tries to listen again.
AGAIN = 0.5
#: Seconds without any message after which the server is asked whether it is there.
SILENCE = 2.0


class _Hint:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> None:
        with anyio.move_on_after(timeout):
            await self._event.wait()
            self._event.clear()


class RedisNudges:
    """Listens to channels; what was said while the connection was away is lost, and need not matter."""

    def __init__(self, url: str) -> None:
        self._where = shown(url)
        self._client = client_for(url, retries=False)
        self._pubsub: PubSub = self._client.pubsub(ignore_subscribe_messages=True)
        #: By channel, one for each listener: what one has heard, the others hear, too.
        self._hints: dict[str, set[_Hint]] = {}
        #: redis-py would connect for each of those who come at once, and remember the last connection only:
        #: held by whoever may find that there is none.
        self._speaking = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[_Hint]:
        """Hear what is published on a channel.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        hint, listeners = _Hint(), self._hints.setdefault(channel, set())
        listeners.add(hint)
        try:
            if len(listeners) == 1:
                await self._subscribe(channel)
            yield hint
        finally:
            listeners.discard(hint)
            if not listeners:
                del self._hints[channel]
                await self._unsubscribe(channel)

    async def close(self) -> None:
        """Stop listening."""
        while self._reader is not None and not self._reader.done():  # redis-py may swallow a cancellation
            self._reader.cancel()
            await asyncio.wait({self._reader}, timeout=0.1)
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._client.aclose()

    async def _subscribe(self, channel: str) -> None:
        try:
            async with self._speaking:
                try:
                    await self._pubsub.subscribe(channel)
                except RedisConnectionError:  # it was closed while it was idle
                    await self._hang_up()
                    await self._pubsub.subscribe(channel)
        except (RedisError, OSError) as exc:
            raise unavailable(exc, self._where) from exc
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(), name="hermes-nudges")

    async def _unsubscribe(self, channel: str) -> None:
        try:
            async with self._speaking:
                if channel in self._pubsub.channels:
                    await self._pubsub.unsubscribe(channel)
        except (RedisError, OSError) as exc:  # gone with the connection
            logger.debug("unsubscribe: %s", exc)

    async def _read(self) -> None:
        missed = False
        while True:
            try:
                message = await self._heard()
            except (RedisError, OSError) as exc:
                logger.info("listening again in %s s: %s", AGAIN, exc)
                async with self._speaking:
                    await self._hang_up()
                await asyncio.sleep(AGAIN)
                missed = True
            else:
                self._tell(message, everybody=missed)
                missed = False

    async def _heard(self) -> Mapping[str, str] | None:
        """Wait for a message; a connection that died without a word is found out by a ping."""
        async with self._speaking:
            await self._pubsub.connect()  # type: ignore[no-untyped-call]
        message: Mapping[str, str] | None = await self._pubsub.get_message(timeout=SILENCE)
        if message or not self._hints:  # while nobody listens, redis-py does not read the answer to a ping
            return message
        async with self._speaking:
            await self._pubsub.ping()
        deadline = time.monotonic() + REPLY_TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            message = await self._pubsub.get_message(timeout=left)
            if message:  # it is None, too, for a subscription that is confirmed
                return message
        raise RedisConnectionError("no answer to a ping")

    async def _hang_up(self) -> None:
        if self._pubsub.connection is not None:
            await self._pubsub.connection.disconnect(nowait=True)

    def _tell(self, message: Mapping[str, str] | None, *, everybody: bool) -> None:
        """Pass a nudge on; after a time without connection nobody knows who would have been nudged."""
        channels = list(self._hints) if everybody else [message["channel"]] if message else []
        for channel in channels:
            for hint in self._hints.get(channel, ()):
                hint.tell()
