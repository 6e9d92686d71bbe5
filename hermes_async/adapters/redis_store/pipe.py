"""One pipeline per loop tick: what concurrent coroutines ask of Redis travels together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hermes_async.domain.errors import StoreUnavailable

_FOLDER = Path(__file__).with_name("lua")
_PRELUDE = "\n".join((_FOLDER / name).read_text() for name in ("pen.lua", "gate.lua"))

#: Commands per pipeline; more wait for the next one.
BATCH = 256

_Value = str | int


class Script:
    """A Lua file of the `lua` folder, with what every script begins with."""

    def __init__(self, name: str) -> None:
        self.source = f"{_PRELUDE}\n{(_FOLDER / name).with_suffix('.lua').read_text()}"
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass
class _Call:
    command: Sequence[str | bytes]
    reply: asyncio.Future[Any]
    script: Script | None = None


class Pipe:
    """Sends commands in the order in which they were asked for, with one round trip in flight."""

    def __init__(self, client: Redis, where: str) -> None:
        self._client = client
        self._where = where
        self._connection: Connection | None = None
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None

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
        if self._sender is not None:
            await asyncio.wait({self._sender})
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await self._client.connection_pool.release(connection)

    def _ask(self, name: str, args: Iterable[_Value], script: Script | None = None) -> asyncio.Future[Any]:
        encoded = [str(value).encode() for value in args]  # here, so that only the asker fails
        call = _Call((name, *encoded), asyncio.get_running_loop().create_future(), script)
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all(), name="hermes-pipe")
        return call.reply

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            unknown = await self._send(batch)
            if unknown:  # the server restarted and forgot the scripts
                await self._send(unknown, load=True)

    async def _send(self, batch: Sequence[_Call], *, load: bool = False) -> list[_Call]:
        """Send calls and hand out the replies; return those whose script the server does not know."""
        sources = {call.script.source for call in batch if call.script} if load else set()
        commands = [("SCRIPT LOAD", source) for source in sources]
        try:
            replies = await self._round_trip([*commands, *(call.command for call in batch)])
        except Exception as exc:  # whatever it is, nobody may wait for ever
            if isinstance(exc, RedisTimeoutError):  # who came meanwhile has waited long enough, too
                batch, self._waiting = [*batch, *self._waiting], []
            replies = [exc] * (len(commands) + len(batch))
        return self._hand_out(zip(batch, replies[len(commands) :], strict=True), retry=not load)

    async def _round_trip(self, commands: Sequence[Sequence[str | bytes]]) -> list[Any]:
        """Send commands and return their replies, errors among them.

        redis-py's own pipeline takes a connection from the pool and tests it for every trip, a sixth of
        the time of a dispatch; we keep ours, and one that has gone bad is found out by its error.
        """
        if self._connection is None:
            self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        connection = self._connection
        return await connection.retry.call_with_retry(
            lambda: self._exchange(connection, commands), lambda _: connection.disconnect()
        )

    async def _exchange(self, connection: Connection, commands: Sequence[Sequence[str | bytes]]) -> list[Any]:
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await self._reply(connection, command[0]) for command in commands]
        except BaseException:  # replies may be left unread: nobody else may get them
            await connection.disconnect(nowait=True)
            raise

    async def _reply(self, connection: Connection, name: str | bytes) -> Any:
        try:
            return await self._client.parse_response(connection, name)
        except ResponseError as exc:
            return exc

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
