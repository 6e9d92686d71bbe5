"""The ledger over Redis; `lua/ledger.lua` says how it is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

from pydantic import JsonValue

from hermes_async.adapters.redis_store.codec import (
    LONGEST_TOLD,
    decode_callback,
    decode_damaged,
    decode_task,
    number,
)
from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.adapters.redis_store.nudges import RedisNudges
from hermes_async.adapters.redis_store.pipe import Pipe, Script
from hermes_async.core.hint import Hint
from hermes_async.core.ledger import ENDPOINT_MEMORY, Backlog
from hermes_async.domain.callback import CALLER_LOST, Call, Callback, delay_after, public_name
from hermes_async.domain.errors import UnknownTask
from hermes_async.domain.events import CallbackData, MessageData
from hermes_async.domain.failure import ErrorInfo

CALL, HOLD, SETTLE, REVIVE, KEEP, CALLER, ENDPOINT, PROBE = (
    Script(name, "ledger")
    for name in ("call", "hold", "settle", "revive", "keep", "caller", "endpoint", "probe")
)
_KEPT = "kept:"
#: Rows that are looked at together.
PAGE = 100


logger = logging.getLogger("hermes.callbacks")


class RedisLedger:
    """The rows of callbacks over one Redis.

    Args:
        pen: calls a script on a partition.
        reads: the connection for what only reads.
        nudges: hears channels.
        keys: the names of all keys.
    """

    def __init__(
        self, pen: Callable[..., asyncio.Future[Any]], reads: Pipe, nudges: RedisNudges, keys: Keys
    ) -> None:
        self._pen = pen
        self._reads = reads
        self._nudges = nudges
        self._keys = keys

    async def claim(self, lease: float, *, webhooks: bool = False) -> Call | None:
        what = (int(lease * 1000), _ready(webhooks), CALLER_LOST.model_dump_json())
        while reply := await self._pen(CALL, self._anywhere, *what):
            callback_id, fence, seq, failures, log, record = reply
            try:
                task = decode_task(_pairs(record))
                row = decode_callback(callback_id, task, {"seq": seq, "failures": failures, "log": log})
                return Call(row, task, int(fence))
            except Exception as exc:  # another version wrote it, or it is damaged: its line must go on
                await self._cannot_read(callback_id, fence, number(failures), exc)
        return None

    async def renew(self, calls: Sequence[Call], lease: float) -> Sequence[str]:
        claims = [value for call in calls for value in (call.id, call.fence)]
        held: list[str] = await self._pen(HOLD, self._anywhere, int(lease * 1000), *claims)
        return held

    async def succeed(self, call: Call, messages: Sequence[MessageData] = ()) -> bool:
        return await self._settle("succeed", call, messages=messages)

    async def fail(self, call: Call, error: ErrorInfo, delay: float) -> bool:
        return await self._settle("fail", call, error, delay)

    async def put_off(self, call: Call, delay: float) -> bool:
        return await self._settle("put_off", call, delay=delay)

    async def give_up(self, call: Call, error: ErrorInfo) -> bool:
        return await self._settle("give_up", call, error)

    async def redeliver(self, callback_id: str) -> bool:
        return await self._revive(callback_id, back=True)

    async def discard(self, callback_id: str) -> bool:
        return await self._revive(callback_id, back=False)

    async def remember(self, call: Call, key: str, value: JsonValue) -> bool:
        kept = json.dumps(value, ensure_ascii=False)
        return bool(await self._pen(KEEP, self._anywhere, call.id, call.fence, key, kept))

    async def remembered(self, call: Call) -> Mapping[str, JsonValue]:
        fields = await self._row(call.id)
        return {n.removeprefix(_KEPT): json.loads(v) for n, v in fields.items() if n.startswith(_KEPT)}

    async def callbacks(
        self, *, session_id: str | None = None, dead: bool | None = None, limit: int = 50
    ) -> Sequence[Callback]:
        kinds = ("waiting", "dead") if dead is None else ("dead",) if dead else ("waiting",)
        found = await asyncio.gather(*(self._oldest(kind, session_id, limit) for kind in kinds))
        oldest = sorted(chain.from_iterable(found), key=lambda row: row[0])
        return [callback for _, callback in oldest[:limit]]

    async def backlog(self) -> Backlog:
        ledger, now = self._keys.ledger, await self._now()
        waiting, dead, oldest, callers = await asyncio.gather(
            self._reads.read("ZCARD", f"{ledger}waiting"),
            self._reads.read("ZCARD", f"{ledger}dead"),
            self._reads.read("ZRANGE", f"{ledger}waiting", 0, 0, "WITHSCORES"),
            self._reads.read("ZCOUNT", f"{ledger}callers", f"({int(now * 1000)}", "+inf"),
        )
        age = max(0.0, now - float(oldest[1]) / 1000) if oldest else None
        return Backlog(waiting, dead, age, callers)

    async def enlist(self, caller: str, ttl: float) -> None:
        await self._pen(CALLER, self._anywhere, caller, int(ttl * 1000))

    async def due_in(self, *, webhooks: bool = False) -> float | None:
        key = f"{self._keys.ledger}{_ready(webhooks)}"
        first, now = await asyncio.gather(self._reads.read("ZRANGE", key, 0, 0, "WITHSCORES"), self._now())
        return max(0.0, float(first[1]) / 1000 - now) if first else None

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Hint]:
        async with self._nudges.listen(f"{self._keys.ledger}nudge") as hint:
            yield hint

    async def endpoint_failed(self, endpoint: str, threshold: int, pause: float) -> float:
        times = (threshold, int(pause * 1000), int(ENDPOINT_MEMORY * 1000))
        return int(await self._pen(ENDPOINT, self._anywhere, endpoint, *times)) / 1000

    async def endpoint_ok(self, endpoint: str) -> None:
        ledger = self._keys.ledger
        await self._reads.read("DEL", f"{ledger}failures:{endpoint}", f"{ledger}closed:{endpoint}")

    async def endpoint_closed_for(self, endpoint: str, threshold: int, probe: float) -> float:
        left = await self._pen(PROBE, self._anywhere, endpoint, threshold, int(probe * 1000))
        return int(left) / 1000

    @property
    def _anywhere(self) -> str:
        """A prefix for scripts that find the partition by themselves."""
        return self._keys.prefixes[0]

    async def _settle(
        self,
        how: str,
        call: Call,
        error: ErrorInfo | None = None,
        delay: float = 0.0,
        messages: Sequence[MessageData] = (),
    ) -> bool:
        data = CallbackData(name=public_name(call.callback), error=error)
        return await self._write(how, call.id, call.fence, data, delay, messages)

    async def _cannot_read(self, callback_id: str, fence: int, failures: int, exc: Exception) -> None:
        """Count a failed try, as of any other row; after the last one it is dead."""
        logger.warning("callback %s cannot be read: %s", callback_id, exc)
        told = f"this row, or the record of its task, cannot be read by this version of hermes_async: {exc}"
        error = ErrorInfo(type=type(exc).__name__, message=told[:LONGEST_TOLD])
        delay = delay_after(failures + 1, random.random())
        data = CallbackData(name=callback_id.split(":")[1], error=error)
        await self._write("give_up" if delay is None else "fail", callback_id, fence, data, delay or 0.0)

    async def _write(
        self,
        how: str,
        callback_id: str,
        fence: int,
        data: CallbackData,
        delay: float,
        messages: Sequence[MessageData] = (),
    ) -> bool:
        answer = await self._pen(
            SETTLE,
            self._keys.of_task(callback_id.partition(":")[0]),
            how,
            callback_id,
            fence,
            int(delay * 1000),
            data.model_dump_json(),
            data.error.model_dump_json() if data.error else "",
            *(message.model_dump_json() for message in messages),
        )
        return bool(answer)

    async def _revive(self, callback_id: str, *, back: bool) -> bool:
        try:
            prefix = self._keys.of_task(callback_id.partition(":")[0])
        except UnknownTask:
            return False
        return bool(await self._pen(REVIVE, prefix, callback_id, int(back)))

    async def _oldest(
        self, kind: str, session_id: str | None, limit: int
    ) -> Sequence[tuple[float, Callback]]:
        """Return the first of the rows that wait, or are dead, each after the ms since which it is."""
        found: list[tuple[float, Callback]] = []
        start, key = 0, f"{self._keys.ledger}{kind}"
        while len(found) < limit:
            flat = await self._reads.read("ZRANGE", key, start, start + PAGE - 1, "WITHSCORES")
            ids = [each for each in flat[::2] if session_id is None or self._may_be_of(each, session_id)]
            since = dict(zip(flat[::2], map(float, flat[1::2]), strict=True))
            rows = [row for row in await asyncio.gather(*map(self._load, ids)) if row]
            found += ((since[row.id], row) for row in rows if session_id in (None, row.session_id))
            if len(since) < PAGE:
                break
            start += PAGE
        return found

    def _may_be_of(self, callback_id: str, session_id: str) -> bool:
        prefix = self._keys.of_task(callback_id.partition(":")[0])
        return prefix == self._keys.of_session(session_id)

    async def _load(self, callback_id: str) -> Callback | None:
        task_id = callback_id.partition(":")[0]
        record = self._reads.read("HGETALL", f"{self._keys.of_task(task_id)}task:{task_id}")
        fields, task = await asyncio.gather(self._row(callback_id), record)
        if not fields or not task:
            return None
        try:
            return decode_callback(callback_id, decode_task(task), fields)
        except Exception:  # who lists it, or redelivers it, is to see it all the same
            return decode_damaged(callback_id, task, fields)

    async def _row(self, callback_id: str) -> Mapping[str, str]:
        prefix = self._keys.of_task(callback_id.partition(":")[0])
        fields: Mapping[str, str] = await self._reads.read("HGETALL", f"{prefix}callback:{callback_id}")
        return fields

    async def _now(self) -> float:
        seconds, microseconds = await self._reads.read("TIME")
        return int(seconds) + int(microseconds) / 1_000_000


def _ready(webhooks: bool) -> str:
    return "ready:webhooks" if webhooks else "ready:functions"


def _pairs(flat: Sequence[str]) -> Mapping[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
