"""One pipeline per loop tick: what concurrent coroutines ask of Redis travels together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hermes_async.adapters.redis_store.connection import REPLY_TIMEOUT
from hermes_async.adapters.redis_store.wire import Command, Wire
from hermes_async.domain.errors import StoreUnavailable

_FOLDER = Path(__file__).with_name("lua")

#: Commands per pipeline; more wait for the next one.
BATCH = 256

_Value = str | int


class Script:
    """A Lua file of the `lua` folder, after the pen, which begins every script, and what else it needs."""

    def __init__(self, name: str, *needs: str) -> None:
        self.source = "\n".join((_FOLDER / f"{part}.lua").read_text() for part in ("pen", *needs, name))
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class _Call:
    command: Command
    reply: asyncio.Future[Any]
    script: Script | None = None


class Pipe:
    """Sends commands in the order in which they were asked for, with one round trip in flight."""

    def __init__(self, client: Redis, where: str) -> None:
        self._client = client
        self._where = where
        self._connection: Connection | None = None
        self._wire: Wire | None = None
        self._waiting: list[_Call] = []
        self._in_flight: Sequence[_Call] = ()
        #: Nobody else asked for anything at the time of the last batch.
        self._is_calm = True
        self._mending: asyncio.Task[None] | None = None

    def call(self, script: Script, prefix: str, *args: _Value) -> asyncio.Future[Any]:
        """Call a script on a partition; the future is its reply.

        Raises:
            StoreUnavailable: Redis cannot be reached, or refuses to write.
        """
        return self._ask("EVALSHA", (script.sha, 1, prefix, *args), script)

    def read(self, name: str, *args: _Value) -> asyncio.Future[Any]:
        """Send a plain command; the future is its reply, with the same errors."""
        return self._ask(name, args)

    async def close(self) -> None:
        """Wait until everything that was asked for is answered, and give the connection back."""
        while self._in_flight or self._waiting:
            await asyncio.wait([call.reply for call in (*self._in_flight, *self._waiting)])
            await asyncio.sleep(0)
        if self._connection is not None:
            connection, self._connection, self._wire = self._connection, None, None
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)

    def _ask(self, name: str, args: Iterable[_Value], script: Script | None = None) -> asyncio.Future[Any]:
        command = Command(name, *args)  # packed here, so that only the asker fails
        call = _Call(command, asyncio.get_running_loop().create_future(), script)
        self._waiting.append(call)
        if not self._in_flight and len(self._waiting) == 1:
            if self._is_calm:
                self._next()
            else:  # what others ask for in this tick goes along
                asyncio.get_running_loop().call_soon(self._next)
        return call.reply

    def _next(self) -> None:
        """Send what was asked for since the last batch, without a task if there is a connection."""
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._in_flight = batch
        if not batch:
            return
        self._is_calm = len(batch) == 1
        if self._wire is not None and self._wire.is_open:
            self._wire.send([call.command for call in batch], partial(self._answered, batch))
        else:
            self._begin_to_mend(batch)

    def _answered(self, batch: Sequence[_Call], outcome: list[Any] | Exception) -> None:
        if isinstance(outcome, list):
            batch = self._hand_out(zip(batch, outcome, strict=True), retry=True)
        elif isinstance(outcome, RedisTimeoutError):
            batch = self._fail(batch, outcome)
        if batch:  # the server restarted and forgot the scripts, or the connection
            self._begin_to_mend(batch)
        else:
            self._next()

    def _begin_to_mend(self, batch: Sequence[_Call]) -> None:
        self._mending = asyncio.create_task(self._mend(batch), name="hermes-pipe")
        self._mending.add_done_callback(self._mended)

    def _mended(self, mending: asyncio.Task[None]) -> None:
        """When this process ends, nobody may wait for ever, even if the mending never began."""
        if mending.cancelled() or mending.exception():
            for call in (*self._in_flight, *self._waiting):
                call.reply.cancel()
            self._in_flight, self._waiting = (), []

    async def _mend(self, batch: Sequence[_Call]) -> None:
        """Send calls over a connection that is made anew, with the scripts that they need."""
        sources = {call.script.source for call in batch if call.script}
        commands = [Command("SCRIPT", "LOAD", source) for source in sources]
        try:
            wire = await self._connected()
            replied: asyncio.Future[list[Any] | Exception] = asyncio.get_running_loop().create_future()
            wire.send([*commands, *(call.command for call in batch)], replied.set_result)
            outcome = await replied
        except Exception as exc:  # whatever it is, nobody may wait for ever
            outcome = exc
        if isinstance(outcome, Exception):
            self._fail(batch, outcome)
        else:
            self._hand_out(zip(batch, outcome[len(commands) :], strict=True), retry=False)
        self._next()

    def _fail(self, batch: Sequence[_Call], exc: Exception) -> list[_Call]:
        if isinstance(exc, RedisTimeoutError):  # who came meanwhile has waited long enough, too
            batch, self._waiting = [*batch, *self._waiting], []
        return self._hand_out(((call, exc) for call in batch), retry=False)

    async def _connected(self) -> Wire:
        if self._wire is None or not self._wire.is_open:
            if self._connection is None:
                self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            await self._connection.disconnect(nowait=True)
            await self._connection.connect()
            self._wire = Wire(self._connection, REPLY_TIMEOUT, self._client.response_callbacks)
        return self._wire

    def _hand_out(self, answered: Iterable[tuple[_Call, Any]], *, retry: bool) -> list[_Call]:
        unknown = []
        for call, reply in answered:
            if call.reply.done():  # who asked has gone
                continue
            if retry and isinstance(reply, NoScriptError):
                unknown.append(call)
            elif isinstance(reply, Exception):
                call.reply.set_exception(self._meaning(reply))
            else:
                call.reply.set_result(reply)
        return unknown

    def _meaning(self, exc: Exception) -> Exception:
        return unavailable(exc, self._where) if isinstance(exc, RedisError | OSError) else exc


def unavailable(exc: Exception, where: str) -> StoreUnavailable:
    """Return the error that tells a user what a Redis error means."""
    return StoreUnavailable(f"Redis at {where} does not work ({exc}); is it running and reachable?")
