"""A connection to Redis that is only listened to; redis-py makes it, as that of a pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hermes_async.adapters.redis_store.connection import REPLY_TIMEOUT
from hermes_async.adapters.redis_store.wire import Command, reader_for, taken_over

_PING = Command("PING").packed


class Channels(asyncio.Protocol):
    """The channels to which one connection is subscribed.

    Args:
        connection: a fresh one.
        heard: is called with the channel and the text of each message.
    """

    def __init__(self, connection: Connection, heard: Callable[[str, str], None]) -> None:
        self._heard = heard
        self._reader = reader_for(connection)
        self._transport, self._before = taken_over(connection, self)
        #: For each channel, whether its subscription is confirmed; False: the connection was lost before.
        self._confirmed: dict[str, asyncio.Future[bool]] = {}
        self._lost = asyncio.Event()
        #: How often anything has come.
        self._signs = 0

    @property
    def is_open(self) -> bool:
        """False once the connection is lost."""
        return not self._transport.is_closing()

    async def subscribe(self, channel: str) -> None:
        """Subscribe, unless that was done, and wait until the server has confirmed it.

        Raises:
            RedisError: it has not, within the time for a reply.
        """
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            self._transport.write(Command("SUBSCRIBE", channel).packed)
        if not confirmed.done():
            await asyncio.wait({confirmed}, timeout=REPLY_TIMEOUT)
        if not confirmed.done():
            self._transport.abort()
            raise RedisTimeoutError("no answer to a subscription")
        if not confirmed.result() or not self.is_open:
            raise RedisConnectionError("the connection was lost")

    def unsubscribe(self, channel: str) -> None:
        """Hear of a channel no more."""
        if self._confirmed.pop(channel, None) is not None and self.is_open:
            self._transport.write(Command("UNSUBSCRIBE", channel).packed)

    async def last(self, silence: float) -> None:
        """Wait until the connection is lost; a ping after `silence` seconds finds out one that is dead."""
        while self.is_open:
            before = self._signs
            await self._pause(silence)
            if self._signs == before and self.is_open:
                self._transport.write(_PING)
                await self._pause(REPLY_TIMEOUT)
                if self._signs == before:
                    self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on what has come."""
        self._signs += 1
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not Ellipsis:
            kind, channel, said = reply if isinstance(reply, list) and len(reply) == 3 else ("", "", "")
            if kind == "message":
                self._heard(channel, said)
            elif kind == "subscribe":
                confirmed = self._confirmed.get(channel)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._before.connection_lost(exc)
        for confirmed in self._confirmed.values():
            if not confirmed.done():
                confirmed.set_result(False)
        self._lost.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()
