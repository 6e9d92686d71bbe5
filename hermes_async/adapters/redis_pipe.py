"""One pipeline per loop tick: the scripts that concurrent coroutines call travel to Redis together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from hermes_async.domain.errors import StoreUnavailable

_FOLDER = Path(__file__).with_name("lua")
_PRELUDE = (_FOLDER / "pen.lua").read_text()

#: Calls per pipeline; more wait for the next one.
BATCH = 256

_Value = str | int | float | bytes


class Script:
    """A Lua file of the `lua` folder, with what every script begins with."""

    def __init__(self, name: str) -> None:
        self.source = f"{_PRELUDE}\n{(_FOLDER / name).with_suffix('.lua').read_text()}"
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass
class _Call:
    script: Script
    prefix: str
    args: Sequence[_Value]
    reply: asyncio.Future[Any]


class Pipe:
    """Calls scripts in the order in which they were asked for, with one round trip in flight."""

    def __init__(self, client: Redis, where: str) -> None:
        self._client = client
        self._where = where
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None

    async def call(self, script: Script, prefix: str, *args: _Value) -> Any:
        """Call a script on a partition and return its reply.

        Raises:
            StoreUnavailable: Redis cannot be reached, or refuses to write.
        """
        call = _Call(script, prefix, args, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all(), name="hermes-pipe")
        return await call.reply

    async def close(self) -> None:
        """Wait until everything that was asked for is answered."""
        if self._sender is not None:
            await asyncio.wait({self._sender})

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            unknown = await self._send(batch)
            if unknown:  # the server restarted and forgot the scripts
                await self._send(unknown, load=True)

    async def _send(self, batch: Sequence[_Call], *, load: bool = False) -> list[_Call]:
        """Send calls and hand out the replies; return those whose script the server does not know."""
        pipeline = self._client.pipeline(transaction=False)
        for source in {call.script.source for call in batch} if load else ():
            pipeline.script_load(source)
        loads = len(pipeline)
        for call in batch:
            pipeline.evalsha(call.script.sha, 1, call.prefix, *call.args)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as exc:
            replies = [exc] * (loads + len(batch))
        return self._hand_out(zip(batch, replies[loads:], strict=True), retry=not load)

    def _hand_out(self, answered: Iterable[tuple[_Call, Any]], *, retry: bool) -> list[_Call]:
        unknown = []
        for call, reply in answered:
            if retry and isinstance(reply, NoScriptError):
                unknown.append(call)
            elif call.reply.done():
                continue
            elif isinstance(reply, Exception):
                call.reply.set_exception(unavailable(reply, self._where))
            else:
                call.reply.set_result(reply)
        return unknown


def unavailable(exc: Exception, where: str) -> StoreUnavailable:
    """Return the error that tells a user what a Redis error means."""
    return StoreUnavailable(f"Redis at {where} does not work ({exc}); is it running and reachable?")
