"""One pipeline per loop tick: what concurrent coroutines ask of Redis travels together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hermes_async.adapters.redis_store.connection import REPLY_TIMEOUT
from hermes_async.adapters.redis_store.meaning import meaning, unavailable
from hermes_async.adapters.redis_store.wire import Command, Wire, parts
from hermes_async.core.home import Home

_FOLDER = Path(__file__).with_name("lua")

#: Commands and calls of scripts per round trip; more wait for the next one.
BATCH = 256
#: Calls of a script in one run of it, which lets nobody else come between.
AT_ONCE = 64

_Value = str | int


class Script:
    """A Lua file of the `lua` folder, between what every script begins and ends with."""

    def __init__(self, name: str, *needs: str) -> None:
        before = "\n".join(map(_text, ("pen", *needs)))
        self.source = f"{before}\nlocal function call()\n{_text(name)}\nend\n{_text('every')}"
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        self._head = parts("EVALSHA", self.sha)

    def run(self, rules: Sequence[_Value], calls: Sequence[_Call]) -> Command:
        """Return the command that does calls at once; of many, each says how many arguments it has."""
        many = len(calls)
        size = 3 + many + len(rules) + sum(call.size for call in calls)
        packed = [self._head, parts(many), *(call.prefix for call in calls), parts(*rules)]
        if many > 1:
            size += many
            for call in calls:
                packed += (parts(call.size), call.args)
        else:
            packed.append(calls[0].args)
        return Command("EVALSHA", packed=b"".join((b"*%d\r\n" % size, *packed)))


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text()


@dataclass(slots=True)
class _Call:
    """A plain command, or one call of a script."""

    reply: asyncio.Future[Any]
    command: Command | None = None
    script: Script | None = None
    prefix: bytes = b""
    #: How many arguments follow, and those.
    args: bytes = b""
    size: int = 0


class _Trip:
    """What travels together: a command for each read, and one for all calls of a script in this tick."""

    def __init__(self, calls: Sequence[_Call], rules: Sequence[_Value]) -> None:
        self.calls = calls
        self._groups: list[list[_Call]] = []
        last: dict[Script, list[_Call]] = {}
        for call in calls:
            group = last.get(call.script) if call.script else None
            if group is None or len(group) == AT_ONCE:
                self._groups.append(group := [])
                if call.script:
                    last[call.script] = group
            group.append(call)
        self.commands = [_command(group, rules) for group in self._groups]

    def replies(self, outcome: Sequence[Any]) -> Iterator[tuple[_Call, Any]]:
        """Yield each call with its reply, which is an error if all calls of its script have failed."""
        for group, reply in zip(self._groups, outcome, strict=True):
            is_for_each = group[0].script is not None and not isinstance(reply, Exception)
            yield from zip(group, reply if is_for_each else [reply] * len(group), strict=True)


def _command(group: Sequence[_Call], rules: Sequence[_Value]) -> Command:
    first = group[0]
    if first.script is not None:
        return first.script.run(rules, group)
    assert first.command is not None
    return first.command


class Pipe:
    """Sends commands, with one round trip in flight; calls of one script, and reads, keep their order.

    Args:
        client: makes the connection.
        where: what it leads to, for those who are told that it does not work.
        home: who may use it.
        rules: what every script is told.
    """

    def __init__(self, client: Redis, where: str, home: Home, rules: Sequence[_Value] = ()) -> None:
        self._client = client
        self._where = where
        self._home = home
        self._rules = rules
        self._connection: Connection | None = None
        self._wire: Wire | None = None
        self._waiting: list[_Call] = []
        self._in_flight: Sequence[_Call] = ()
        #: Nobody else asked for anything at the time of the last batch.
        self._is_calm = True
        self._mending: asyncio.Task[None] | None = None
        #: Set when nothing is under way any more.
        self._at_rest = asyncio.Event()

    def call(self, script: Script, prefix: str, *args: _Value) -> asyncio.Future[Any]:
        """Call a script on a partition; the future is its reply.

        Raises:
            StoreUnavailable: Redis cannot be reached, or says that it cannot do anything now.
            StoreDamaged: it cannot do this.
            UserError: it is asked from elsewhere than at first, or was closed.
        """
        reply = self._reply()
        packed = parts(*args)  # here, so that only the asker fails
        return self._ask(_Call(reply, None, script, parts(prefix), packed, len(args)))

    def read(self, name: str, *args: _Value) -> asyncio.Future[Any]:
        """Send a plain command; the future is its reply, with the same errors."""
        return self._ask(_Call(self._reply(), Command(name, *args)))

    async def close(self) -> None:
        """Wait until everything that was asked for is answered, and give the connection back."""
        while self._in_flight or self._waiting:
            self._at_rest.clear()
            await self._at_rest.wait()  # not for the replies: who has asked may have gone
        if self._connection is not None:
            connection, self._connection, self._wire = self._connection, None, None
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)

    def _reply(self) -> asyncio.Future[Any]:
        return self._home.loop().create_future()

    def _ask(self, call: _Call) -> asyncio.Future[Any]:
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
            self._at_rest.set()
            return
        self._is_calm = len(batch) == 1
        if self._wire is not None and self._wire.is_open:
            trip = _Trip(batch, self._rules)
            self._wire.send(trip.commands, partial(self._answered, trip))
        else:
            self._begin_to_mend(batch)

    def _answered(self, trip: _Trip, outcome: list[Any] | Exception) -> None:
        batch = trip.calls
        if isinstance(outcome, list):
            batch = self._hand_out(trip.replies(outcome), retry=True)
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
            self._at_rest.set()

    async def _mend(self, batch: Sequence[_Call]) -> None:
        """Send calls over a connection that is made anew, with the scripts that they need."""
        sources = {call.script.source for call in batch if call.script}
        commands = [Command("SCRIPT", "LOAD", source) for source in sources]
        trip = _Trip(batch, self._rules)
        try:
            wire = await self._connected()
            replied: asyncio.Future[list[Any] | Exception] = asyncio.get_running_loop().create_future()
            wire.send([*commands, *trip.commands], replied.set_result)
            outcome = await replied
        except Exception as exc:  # whatever it is, nobody may wait for ever
            outcome = exc
        if isinstance(outcome, Exception):
            self._fail(batch, outcome)
        else:
            self._hand_out(trip.replies(outcome[len(commands) :]), retry=False)
        self._next()

    def _fail(self, batch: Sequence[_Call], exc: Exception) -> list[_Call]:
        if isinstance(exc, RedisTimeoutError):  # who came meanwhile has waited long enough, too
            batch, self._waiting = [*batch, *self._waiting], []
        return self._hand_out(((call, unavailable(exc, self._where)) for call in batch), retry=False)

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
                call.reply.set_exception(meaning(reply, self._where))
            else:
                call.reply.set_result(reply)
        return unknown
