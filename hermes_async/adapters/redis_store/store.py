"""The store over Redis: one Lua script per intent, and plain reads."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from itertools import chain

from redis.asyncio import Redis

from hermes_async.adapters.redis_store.codec import decode_event, decode_task, encode_changes
from hermes_async.adapters.redis_store.connection import client_for, shown
from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.adapters.redis_store.nudges import RedisNudges
from hermes_async.adapters.redis_store.pipe import Pipe, Script
from hermes_async.core.ports import PUBLISH_GRACE, Hint, Page, Parcel, Renewal, Snapshot
from hermes_async.domain.errors import IdempotencyConflict
from hermes_async.domain.events import INBOX_TYPES, AnyEvent, queued
from hermes_async.domain.lifecycle import STAMP, TARGET, UNFENCED, allowed_from, changes
from hermes_async.domain.task import Task, TaskStatus

CREATE, CLAIM, APPEND, POST = Script("create"), Script("claim"), Script("append"), Script("post")
RELEASE, PUBLISHED, RENEW = Script("release"), Script("published"), Script("renew")
LATE, PRUNE = Script("late"), Script("prune")

#: Events kept per session at least; older ones are trimmed and show as a gap.
LOG_LENGTH = 10_000
#: Seconds for which an idempotency key stands for its task.
IDEMPOTENCY_TTL = 86_400
#: Tasks that one prune forgets per partition.
PRUNE_BATCH = 500
#: The index that holds the tasks of which a field has some value.
_INDEXES = {"session_id": "tasks-of", "status": "by-status", "agent": "by-agent"}


class RedisStore:
    """The pen and its readers over one Redis. Use it on the event loop on which it was made."""

    def __init__(self, url: str, *, namespace: str = "hermes", log_length: int = LOG_LENGTH) -> None:
        self._client: Redis = client_for(url)
        self._keys = Keys(namespace)
        self._log_length = log_length
        self._pipe = Pipe(self._client, shown(url))
        self._reads = Pipe(self._client, shown(url))  # apart, so that a long read holds up no write
        self._nudges = RedisNudges(url)

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        birth = task.birth
        made, value, *rest = await self._pipe.call(
            CREATE,
            self._keys.of_session(task.session_id),
            task.id,
            self._log_length,
            task.session_id,
            task.agent,
            birth.trace_id,
            birth.model_dump_json(exclude_defaults=True),
            _digest(task),
            idempotency_key or "",
            IDEMPOTENCY_TTL * 1000,
            parcel.key if parcel else "",
            parcel.body if parcel else "",
            int(PUBLISH_GRACE * 1000),
            queued(task).data.model_dump_json(),
        )
        if made:
            return task.model_copy(update={"created_at": int(value) / 1000})
        if rest[0] != _digest(task):
            raise IdempotencyConflict(
                f"idempotency key {idempotency_key!r} was used with another input, by task {value}"
            )
        return await self.load(value) or task

    async def load(self, task_id: str) -> Task | None:
        fields = await self._reads.read("HGETALL", f"{self._keys.of_task(task_id)}task:{task_id}")
        return decode_task(fields) if fields else None

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        prefix = self._keys.of_task(task_id)
        flat = await self._pipe.call(
            CLAIM, prefix, task_id, self._log_length, worker, int(lease * 1000), token
        )
        return decode_task(dict(zip(flat[::2], flat[1::2], strict=True))) if flat else None

    async def append(self, event: AnyEvent, *, lapsed: bool = False) -> int:
        assert event.task_id is not None
        delay = getattr(event.data, "delay", 0.0) if event.type == "task.retrying" else 0.0
        seq = await self._pipe.call(
            APPEND,
            self._keys.of_session(event.session_id),
            event.task_id,
            self._log_length,
            "".join(f"{status}," for status in allowed_from(event.type)),
            "" if event.type in UNFENCED else event.attempt,
            0 if event.type in UNFENCED else event.ordinal,
            int(lapsed),
            TARGET.get(event.type, ""),
            STAMP.get(event.type, ""),
            int(delay * 1000),
            int(event.type in INBOX_TYPES),
            event.id,
            event.type,
            event.data.model_dump_json(),
            *encode_changes(event, changes(event)),
        )
        return int(seq)

    async def post(self, event: AnyEvent) -> int:
        seq = await self._pipe.call(
            POST,
            self._keys.of_session(event.session_id),
            self._log_length,
            event.session_id,
            int(event.type in INBOX_TYPES),
            event.id,
            event.type,
            event.task_id or "",
            event.agent or "",
            event.attempt,
            event.trace_id or "",
            event.data.model_dump_json(),
        )
        return int(seq)

    async def renew(self, worker: str, task_ids: Sequence[str], lease: float) -> Renewal:
        parts: dict[str, list[str]] = defaultdict(list)
        for task_id in task_ids:
            parts[self._keys.of_task(task_id)].append(task_id)
        calls = (
            self._pipe.call(RENEW, prefix, worker, int(lease * 1000), *ids) for prefix, ids in parts.items()
        )
        replies = await asyncio.gather(*calls)
        held = [task_id for reply in replies for task_id in reply[0]]
        return Renewal(held, [task_id for reply in replies for task_id in reply[1]])

    async def lapsed(self, limit: int = 100) -> Sequence[str]:
        return await self._late("leases", limit)

    async def due(self, limit: int = 100) -> Sequence[str]:
        return await self._late("due", limit)

    async def release(self, task_id: str) -> Task | None:
        prefix = self._keys.of_task(task_id)
        left = await self._pipe.call(RELEASE, prefix, task_id, int(PUBLISH_GRACE * 1000))
        return await self.load(task_id) if left else None

    async def published(self, task: Task) -> None:
        await self._pipe.call(PUBLISHED, self._keys.of_task(task.id), task.id, task.attempt)

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        found = await self._range("events", session_id, after, limit)
        missed = bool(found) and found[0].seq > after + 1
        return Page(found, (after + 1, found[0].seq - 1) if missed else None)

    async def last_seq(self, session_id: str) -> int:
        key = f"{self._keys.of_session(session_id)}session:{session_id}"
        return int(await self._reads.read("HGET", key, "seq") or 0)

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
        indexes = [f"{_INDEXES[name]}:{value}" for name, value in asked.items()] or ["tasks"]
        parts = await asyncio.gather(*(self._newest(prefix, indexes, limit) for prefix in prefixes))
        newest = sorted(chain.from_iterable(parts), reverse=True)[:limit]
        found = await asyncio.gather(*(self.load(task_id) for _, task_id in newest))
        return [
            task
            for task in found
            if task and all(getattr(task, name) == value for name, value in asked.items())
        ]

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        return await self._range("inbox", session_id, after, limit)

    async def ack(self, session_id: str, seqs: Sequence[int]) -> int:
        if not seqs:
            return 0
        key = f"{self._keys.of_session(session_id)}inbox:{session_id}"
        return int(await self._pipe.read("XDEL", key, *(f"{seq}-0" for seq in seqs)))

    @asynccontextmanager
    async def watch(self, session_id: str) -> AsyncIterator[Hint]:
        channel = f"{self._keys.of_session(session_id)}nudge:{session_id}"
        async with self._nudges.listen(channel) as hint:
            yield hint

    async def prune(self, retention: float) -> int:
        calls = (self._pipe.call(PRUNE, p, int(retention * 1000), PRUNE_BATCH) for p in self._keys.prefixes)
        return sum(await asyncio.gather(*calls))

    async def ping(self) -> str:
        info = await self._reads.read("INFO", "server")
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {info[f'{name}_version']}"

    async def close(self) -> None:
        await self._pipe.close()
        await self._reads.close()
        await self._nudges.close()
        await self._client.aclose()

    async def _late(self, kind: str, limit: int) -> Sequence[str]:
        calls = (self._pipe.call(LATE, prefix, kind, limit) for prefix in self._keys.prefixes)
        return [task_id for ids in await asyncio.gather(*calls) for task_id in ids]

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


def _digest(task: Task) -> str:
    asked = json.dumps([task.agent, task.birth.input], sort_keys=True, ensure_ascii=False)
    return blake2b(asked.encode(), digest_size=16).hexdigest()
