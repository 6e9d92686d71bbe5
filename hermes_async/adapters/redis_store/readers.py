"""The readers over Redis: plain commands, on a connection of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain

from redis.asyncio import Redis

from hermes_async.adapters.redis_store.codec import decode_event, decode_nudge
from hermes_async.adapters.redis_store.connection import name_of
from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.adapters.redis_store.nudges import RedisNudges
from hermes_async.adapters.redis_store.pipe import Pipe
from hermes_async.adapters.redis_store.reading import read_task, tell_once
from hermes_async.core.hint import Hint
from hermes_async.core.home import Home
from hermes_async.core.page import Page
from hermes_async.core.ports import Snapshot, Traffic
from hermes_async.domain.errors import StoreDamaged
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Lane, Task, TaskStatus
from hermes_async.domain.urls import masked

#: The index that holds the tasks of which a field has some value.
_INDEXES = {"session_id": "tasks-of", "status": "by-status", "agent": "by-agent"}


class RedisReaders:
    """What a store can be asked without changing it; a long read holds up no write.

    Args:
        client: makes the connection.
        url: where it leads.
        keys: the names of all keys.
    """

    def __init__(self, client: Redis, url: str, keys: Keys) -> None:
        self._keys = keys
        self._where = masked(url)
        self.home = Home()
        self._reads = Pipe(client, self._where, self.home)
        self._nudges = RedisNudges(url, self.home)

    async def load(self, task_id: str) -> Task | None:
        fields = await self._reads.read("HGETALL", f"{self._keys.of_task(task_id)}task:{task_id}")
        return read_task(task_id, fields) if fields else None

    async def load_all(self, task_ids: Collection[str]) -> Sequence[Task]:
        found = await asyncio.gather(*map(self._readable, task_ids))
        return [task for task in found if task]

    async def born(self, task_id: str) -> int:
        key = f"{self._keys.of_task(task_id)}task:{task_id}"
        return int(await self._reads.read("HGET", key, "born") or 0)

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        found = await self._range("events", session_id, after, limit)
        return Page.of(found, after)

    async def last_seq(self, session_id: str) -> int:
        key = f"{self._keys.of_session(session_id)}session:{session_id}"
        return int(await self._reads.read("HGET", key, "seq") or 0)

    async def head(self, session_id: str) -> tuple[int, str]:
        log = f"{self._keys.of_session(session_id)}events:{session_id}"
        newest, seq = await asyncio.gather(
            self._reads.read("XREVRANGE", log, "+", "-", "COUNT", 1), self.last_seq(session_id)
        )
        events = [decode_event(session_id, entry_id, fields) for entry_id, fields in newest]
        return (events[0].seq, events[0].id) if events and events[0].seq >= seq else (seq, "")

    async def snapshot(self, session_id: str) -> Snapshot:
        seq = await self.last_seq(session_id)  # read first: the tasks may then be newer, never older
        return Snapshot(seq, await self.tasks(session_id=session_id, limit=10_000))

    async def tasks(
        self,
        *,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        agent: str | None = None,
        limit: int = 50,
    ) -> Sequence[Task]:
        wanted = {"session_id": session_id, "status": status, "agent": agent}
        asked = {name: value for name, value in wanted.items() if value is not None}
        prefixes = self._keys.prefixes if session_id is None else [self._keys.of_session(session_id)]
        indexes = [f"{_INDEXES[name]}:{value}" for name, value in asked.items()]
        choices = [indexes] if indexes else [[f"by-status:{each}"] for each in TaskStatus]
        looks = (self._newest(prefix, chosen, limit) for prefix in prefixes for chosen in choices)
        parts = await asyncio.gather(*looks)
        newest = sorted(chain.from_iterable(parts), reverse=True)[:limit]
        found = await self.load_all([task_id for _, task_id in newest])
        return [task for task in found if all(getattr(task, name) == value for name, value in asked.items())]

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        return await self._range("inbox", session_id, after, limit)

    async def unread(self, session_id: str) -> int:
        key = f"{self._keys.of_session(session_id)}inbox:{session_id}"
        return int(await self._reads.read("XLEN", key))

    @asynccontextmanager
    async def watch(self, session_id: str) -> AsyncIterator[Hint]:
        async with self._nudges.listen(self._channel(session_id), partial(decode_nudge, session_id)) as hint:
            yield hint

    @asynccontextmanager
    async def watch_task(self, task_id: str) -> AsyncIterator[Hint]:
        async with self._nudges.listen(f"{self._keys.of_task(task_id)}call:{task_id}") as hint:
            yield hint

    async def traffic(self) -> Traffic:
        gate = self._keys.gate
        lanes = list(Lane)
        admitted, workers, (now, sizes, known, waiting, leader, swept) = await asyncio.gather(
            asyncio.gather(*(self._reads.read("SCARD", f"{gate}admitted:{lane}") for lane in lanes)),
            asyncio.gather(
                *(self._reads.read("ZRANGE", f"{gate}workers:{lane}", 0, -1, "WITHSCORES") for lane in lanes)
            ),
            asyncio.gather(
                self._reads.read("TIME"),
                self._reads.read("HGETALL", f"{gate}sizes"),
                self._reads.read("HGETALL", f"{gate}agents"),
                self._reads.read("HGET", f"{gate}counts", "waiting"),
                self._reads.read("GET", f"{gate}leader"),
                self._reads.read("HGETALL", f"{gate}swept"),
            ),
        )
        alive = {lane.value: _alive(found, now) for lane, found in zip(lanes, workers, strict=True)}
        agents = {worker: json.loads(names) for worker, names in known.items()}
        return Traffic(
            admitted={lane.value: int(count) for lane, count in zip(lanes, admitted, strict=True)},
            slots={lane: sum(int(sizes.get(name, 0)) for name in names) for lane, names in alive.items()},
            waiting=int(waiting or 0),
            leader=leader,
            swept={kind: int(count) for kind, count in swept.items()},
            agents={lane: {*_all(agents, names)} for lane, names in alive.items()},
        )

    async def nudge(self, session_id: str) -> None:
        await self._reads.read("PUBLISH", self._channel(session_id), "")

    async def ping(self) -> str:
        return name_of(await self._reads.read("INFO", "server"), self._where)

    async def revoked(self, names: Sequence[str]) -> Collection[str]:
        known = await asyncio.gather(
            *(self._reads.read("EXISTS", self._keys.revoked(name)) for name in names)
        )
        return {name for name, is_there in zip(names, known, strict=True) if is_there}

    async def _readable(self, task_id: str) -> Task | None:
        try:
            return await self.load(task_id)
        except StoreDamaged as exc:
            tell_once(task_id, exc)
            return None

    def _channel(self, session_id: str) -> str:
        return f"{self._keys.of_session(session_id)}nudge:{session_id}"

    async def _range(self, kind: str, session_id: str, after: int, limit: int) -> list[AnyEvent]:
        key = f"{self._keys.of_session(session_id)}{kind}:{session_id}"
        entries = await self._reads.read("XRANGE", key, f"{after + 1}-0", "+", "COUNT", limit)
        return [decode_event(session_id, entry_id, fields) for entry_id, fields in entries]

    async def _newest(self, prefix: str, indexes: Sequence[str], limit: int) -> Iterable[tuple[float, str]]:
        """Return the newest tasks of a partition that are in all these indexes, each after its birth."""
        keys = [prefix + index for index in indexes]
        if len(keys) == 1:
            flat = await self._reads.read("ZREVRANGE", *keys, 0, limit - 1, "WITHSCORES")
        else:
            flat = await self._reads.read("ZINTER", len(keys), *keys, "AGGREGATE", "MAX", "WITHSCORES")
        return zip(map(float, flat[1::2]), flat[::2], strict=True)


def _all(agents: Mapping[str, Iterable[str]], workers: Iterable[str]) -> Iterator[str]:
    return chain.from_iterable(agents.get(worker, ()) for worker in workers)


def _alive(workers: Sequence[str], now: tuple[int, int]) -> Sequence[str]:
    """Return the workers that are not overdue, given each and when it will be, in ms."""
    at = now[0] * 1000 + now[1] // 1000
    return [name for name, until in zip(workers[::2], workers[1::2], strict=True) if float(until) > at]
