"""The socket of a pipe: a batch of commands goes out, its replies come back as one future.

redis-py makes the connection (TLS, password, database) and we take over its socket: its own reading costs a
coroutine, a timer and a buffer per reply, which is more than half of the processor time of a round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError


class Command:
    """A command as it goes over the wire, and the name by which its reply is understood.

    Args:
        name: what it does.
        args: follow the name.
        packed: all of that, if somebody has packed it already.

    Raises:
        UnicodeEncodeError: an argument has no UTF-8 form.
    """

    __slots__ = ("name", "packed")

    def __init__(self, name: str, *args: str | int, packed: bytes = b"") -> None:
        self.name = name
        self.packed = packed or _packed(name, *args)


def parts(*args: str | int) -> bytes:
    """Return arguments as parts of a command that is put together later."""
    return _packed(*args).split(b"\n", 1)[1]


def _packed(*args: str | int) -> bytes:
    packed: bytes = hiredis.pack_command(args)  # type: ignore[arg-type]
    return packed


def reader_for(connection: Connection) -> hiredis.Reader:
    """Return what parses the replies of a connection; `Ellipsis` is what it says when there is none yet."""
    return hiredis.Reader(
        protocolError=InvalidResponse,
        replyError=connection._parser.parse_error,
        encoding="utf-8",
        notEnoughData=Ellipsis,
    )


def taken_over(connection: Connection, by: asyncio.Protocol) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """Take a connection's socket from redis-py; return its transport, and who had it before."""
    assert connection._writer is not None
    transport = cast("asyncio.Transport", connection._writer.transport)
    before = cast("asyncio.Protocol", transport.get_protocol())
    transport.set_protocol(by)
    return transport, before


#: Takes the replies of a batch, or what went wrong.
Done = Callable[["list[Any] | Exception"], None]


class Wire(asyncio.Protocol):
    """One connection with at most one batch under way."""

    def __init__(self, connection: Connection, timeout: float, meanings: Mapping[Any, Any]) -> None:
        self._timeout = timeout
        self._meanings = meanings
        self._reader = reader_for(connection)
        self._loop = asyncio.get_running_loop()
        self._transport, self._before = taken_over(connection, self)
        self._commands: Sequence[Command] = ()
        self._replies: list[Any] = []
        self._done: Done | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """False once the connection is lost."""
        return not self._transport.is_closing()

    def send(self, commands: Sequence[Command], done: Done) -> None:
        """Send commands, and call `done` with their replies, errors among them, or with what went wrong."""
        self._commands, self._replies, self._done = commands, [], done
        self._transport.write(b"".join([command.packed for command in commands]))
        self._timer = self._loop.call_later(self._timeout, self._fail, RedisTimeoutError("no reply"))

    def data_received(self, data: bytes) -> None:
        """Take what has come, and finish when all replies are there."""
        self._reader.feed(data)
        replies, commands, missing = self._replies, self._commands, len(self._commands)
        while len(replies) < missing and (reply := self._reader.gets()) is not Ellipsis:
            meaning = self._meanings.get(commands[len(replies)].name)
            replies.append(meaning(reply) if meaning and not isinstance(reply, Exception) else reply)
        if len(replies) == missing:
            self._finish(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; the next batch needs another connection."""
        self._before.connection_lost(exc)
        self._fail(RedisConnectionError(f"the connection was lost: {exc or 'closed by the server'}"))

    def _fail(self, exc: Exception) -> None:
        self._transport.abort()  # replies may be left unread: nobody else may get them
        self._finish(exc)

    def _finish(self, outcome: list[Any] | Exception) -> None:
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if done is not None:
            done(outcome)
