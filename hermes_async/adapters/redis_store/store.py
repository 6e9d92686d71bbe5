"""The store over Redis: one Lua script per intent, and plain reads."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis

from hermes_async.adapters.redis_store.accounts import RedisAccounts, decode_counts, encode_budgets
from hermes_async.adapters.redis_store.codec import (
    decode_task,
    encode_birth,
    encode_changes,
    encode_move,
    encode_wants,
)
from hermes_async.adapters.redis_store.connection import client_for
from hermes_async.adapters.redis_store.dialogue import RedisDialogue
from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.adapters.redis_store.ledger import RedisLedger
from hermes_async.adapters.redis_store.pipe import Script
from hermes_async.core.dialogue import RECENT
from hermes_async.core.ledger import DEAD_RETENTION
from hermes_async.core.metrics import OPEN, Metrics, counted_as, metrics
from hermes_async.core.ports import (
    NOTHING_SWEPT,
    Cancelled,
    Parcel,
    Renewal,
)
from hermes_async.domain.agent import NAMESPACE, NO_LIMITS, GateLimits
from hermes_async.domain.callback import AFTER
from hermes_async.domain.events import (
    CLASSES,
    INBOX_TYPES,
    AnyEvent,
    CancelRequestedData,
    StartedData,
    queued_data,
)
from hermes_async.domain.failure import Reason
from hermes_async.domain.idempotency import rule_of, used_elsewhere, used_otherwise
from hermes_async.domain.lifecycle import DIALOGUE, IN_VAIN, STAMP, TARGET, UNFENCED, allowed_from, changes
from hermes_async.domain.refusals import nothing_left, parent_has_ended, too_many_wait
from hermes_async.domain.task import Lane, Task
from hermes_async.domain.trusted import trusted

CLAIM, RENEW, LATE, PUBLISHED, LEAD, CENSUS, RESUME = (
    Script(name) for name in ("claim", "renew", "late", "published", "lead", "census", "resume")
)
POST = Script("post", "recent")
ENLIST, ASIDE, BACK, TEND, RESEND = (
    Script(name, "gate") for name in ("enlist", "aside", "back", "tend", "resend")
)
#: Of a task without budgets, and of one with some, which is also held against them.
CREATE, CREATE_BOUND = Script("create", "gate"), Script("create", "gate", "accounts")
APPEND, CANCEL = (Script(name, "gate", "ledger", "cascade") for name in ("append", "cancel"))
PRUNE = Script("prune", "ledger")

#: For each event, the statuses in which it may be appended, as the script reads them.
_ALLOWED = {
    type_: "".join(f"{status}," for status in allowed_from(type_)) for type_ in CLASSES.keys() - DIALOGUE
}
#: The same for an attempt that writes its own event.
_OWN = {
    type_: "".join(f"{status}," for status in allowed_from(type_) if status.is_begun) for type_ in _ALLOWED
}
#: For each event, the kinds of callbacks that it makes due.
_DUE = {type_: ",".join(AFTER.get(type_, ())) for type_ in CLASSES}
#: For each event that ends an attempt in vain, those that a child makes due which is cancelled because of it.
_STOPS = dict.fromkeys(IN_VAIN, f",{_DUE['task.cancelled']}")

#: Events kept per session at least; older ones are trimmed and show as a gap.
LOG_LENGTH = 10_000
#: Tasks that one prune forgets per partition.
PRUNE_BATCH = 500
#: Queued tasks of a partition among which the oldest is looked for that has not begun yet.
CENSUS_DEPTH = 1_000


class RedisStore(RedisDialogue, RedisAccounts):
    """The pen and its readers over one Redis."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = NAMESPACE,
        log_length: int = LOG_LENGTH,
        limits: GateLimits = NO_LIMITS,
    ) -> None:
        self._client: Redis = client_for(url)
        super().__init__(self._client, url, Keys(namespace), log_length, limits.max_running or 0)
        self._max_queued = limits.max_queued or 0
        self.ledger = RedisLedger(self._pen, self._reads, self._nudges, self._keys)

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        reply = await self._create(task, parcel, idempotency_key)
        self._publish_ready([reply])
        return await self._accepted(task, reply, idempotency_key)

    async def create_all(self, tasks: Sequence[Task], parcels: Sequence[Parcel | None]) -> Sequence[Task]:
        calls = [self._create(task, parcel, None) for task, parcel in zip(tasks, parcels, strict=True)]
        replies = await asyncio.gather(*calls)
        self._publish_ready(replies)
        return [await self._accepted(task, reply, None) for task, reply in zip(tasks, replies, strict=True)]

    def _create(self, task: Task, parcel: Parcel | None, key: str | None) -> asyncio.Future[Any]:
        birth, options = task.birth, task.birth.options
        return self._pen(
            CREATE_BOUND if birth.budgets else CREATE,
            self._keys.of_session(task.session_id),
            task.id,
            task.session_id,
            task.agent,
            birth.trace_id,
            encode_birth(birth),
            _digest(task) if key else "",
            self._keys.idempotency(birth, key) if key else "",
            max(1, int(rule_of(birth).ttl * 1000)) if key else 0,
            parcel.key if parcel else "",
            parcel.body if parcel else "",
            queued_data(task).model_dump_json(),
            birth.to.lane,
            birth.subagent,
            options.concurrency_limit or "",
            birth.to.concurrency_limit or "",
            options.priority,
            _milliseconds(options.queue_timeout),
            _milliseconds(options.total_timeout),
            self._max_queued,
            birth.parent_task_id or "",
            birth.parent_attempt,
            encode_wants(birth),
            _milliseconds(options.limits.seconds),
            *encode_budgets(birth.budgets),
        )

    def _publish_ready(self, replies: Iterable[Sequence[Any]]) -> None:
        ready = [task_id for made, _, *rest in replies if made == 1 for task_id in rest[0]]
        if ready:
            self._publish(ready)

    async def _accepted(self, task: Task, reply: Sequence[Any], key: str | None) -> Task:
        """Return the record that stands after a create, or raise what refuses it."""
        made, value, *rest = reply
        if made == 1:
            return trusted(Task, {**vars(task), "created_at": int(value) / 1000})
        if made == 2:
            raise too_many_wait(task, int(value))
        if made == 3:
            raise parent_has_ended(task, value)
        if made == 4:
            raise nothing_left(task, [decode_counts(tree) for tree in value])
        if key and rest[1] != task.session_id:
            raise used_elsewhere(key)
        if key and rest[0] != _digest(task):
            raise used_otherwise(key, value)
        return await self.load(value) or task

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        prefix = self._keys.of_task(task_id)
        flat = await self._pen(CLAIM, prefix, task_id, worker, int(lease * 1000), token, _started(worker))
        if not flat:
            return None
        try:
            return decode_task(dict(zip(flat[::2], flat[1::2], strict=True)))
        except Exception:  # the reply is a part of the record: the whole says what is known
            return await self.load(task_id)

    async def append(
        self,
        event: AnyEvent,
        *,
        lapsed: bool = False,
        own: bool = False,
        moved: Task | None = None,
        parcel: Parcel | None = None,
    ) -> int:
        assert event.task_id is not None
        delay = getattr(event.data, "delay", 0.0) if event.type == "task.retrying" else 0.0
        seq, *stopped = await self._admitting(
            APPEND,
            self._keys.of_session(event.session_id),
            event.task_id,
            (_OWN if own else _ALLOWED).get(event.type, ""),
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
            _DUE[event.type],
            counted_as(event),
            _STOPS.get(event.type, ""),
            *encode_changes(event, changes(event)),
            *encode_move(moved, parcel),
        )
        if stopped and stopped[0]:
            self._revoke(stopped[0])
        return int(seq)

    async def cancel(self, task_id: str, *, force: bool, cascade: bool) -> Cancelled:
        data = CancelRequestedData(force=force).model_dump_json()
        prefix = self._keys.of_task(task_id)
        how = (data, int(cascade), _DUE["task.cancelled"], token_hex(8))
        running, ended = await self._admitting(CANCEL, prefix, task_id, *how)
        return Cancelled(running, ended)

    async def step_aside(self, task: Task) -> None:
        await self._admitting(ASIDE, self._keys.of_task(task.id), task.id, task.attempt)

    async def step_back(self, task: Task) -> bool | None:
        [answer] = await self._admitting(BACK, self._keys.of_task(task.id), task.id, task.attempt)
        return None if answer < 0 else bool(answer)

    async def enlist(
        self, worker: str, lane: Lane, slots: int, ttl: float, agents: Collection[str] = ()
    ) -> None:
        known = json.dumps(sorted(agents))
        await self._admitting(ENLIST, self._keys.prefixes[0], worker, lane, slots, int(ttl * 1000), known)

    async def lead(self, worker: str, ttl: float, swept: Mapping[str, int] = NOTHING_SWEPT) -> bool:
        counts = [swept.get(kind, 0) for kind in ("lost", "released", "expired")]
        return bool(await self._pen(LEAD, self._keys.prefixes[0], worker, int(ttl * 1000), *counts))

    async def metrics(self) -> Metrics:
        census = (self._pen(CENSUS, prefix, CENSUS_DEPTH) for prefix in self._keys.prefixes)
        fields, *found = await asyncio.gather(self._reads.read("HGETALL", self._keys.metrics), *census)
        queued, running, asking, births, now = zip(*found, strict=True)
        oldest = max((at - born for at, born in zip(now, births, strict=True) if born), default=None)
        return metrics(
            {name: int(number) for name, number in fields.items()},
            open=dict(zip(OPEN, (sum(queued), sum(running), sum(asking)), strict=True)),
            oldest=None if oldest is None else max(0, oldest) / 1000,
        )

    async def post(self, event: AnyEvent) -> int:
        seq = await self._pen(
            POST,
            self._keys.of_session(event.session_id),
            event.session_id,
            int(event.type in INBOX_TYPES),
            RECENT,
            event.id,
            event.type,
            event.task_id or "",
            event.agent or "",
            event.attempt,
            event.trace_id or "",
            event.data.model_dump_json(),
        )
        return int(seq)

    async def resume(self, session_id: str, seq: int, event_id: str) -> int:
        return int(await self._pen(RESUME, self._keys.of_session(session_id), session_id, seq, event_id))

    async def renew(self, worker: str, task_ids: Sequence[str], lease: float) -> Renewal:
        parts: dict[str, list[str]] = defaultdict(list)
        for task_id in task_ids:
            parts[self._keys.of_task(task_id)].append(task_id)
        calls = (self._pen(RENEW, prefix, worker, int(lease * 1000), *ids) for prefix, ids in parts.items())
        replies = [*await asyncio.gather(*calls), ([], [])]
        held, cancelled = (list(chain.from_iterable(ids)) for ids in zip(*replies, strict=True))
        return Renewal(held, cancelled)

    async def lapsed(self, limit: int = 100) -> Sequence[str]:
        return await self._late("leases", limit)

    async def overdue(self, limit: int = 100) -> Sequence[tuple[str, Reason]]:
        found = (member.split("/", 1) for member in await self._late("deadlines", limit))
        return [(task_id, Reason(reason)) for reason, task_id in found]

    async def tend(self, limit: int = 100) -> int:
        due = (self._admitting(TEND, prefix, limit) for prefix in self._keys.prefixes)
        counts = await asyncio.gather(*due, self._admitting(RESEND, self._keys.prefixes[0], limit))
        return sum(count for [count] in counts)

    async def published(self, task_ids: Sequence[str]) -> None:
        await self._pen(PUBLISHED, self._keys.prefixes[0], *task_ids)

    async def ack(self, session_id: str, seqs: Sequence[int]) -> int:
        if not seqs:
            return 0
        key = f"{self._keys.of_session(session_id)}inbox:{session_id}"
        return int(await self._pipe.read("XDEL", key, *(f"{seq}-0" for seq in seqs)))

    async def revoke_token(self, name: str, ttl: float) -> None:
        await self._pipe.read("SET", self._keys.revoked(name), "", "PX", max(1, int(ttl * 1000)))

    async def prune(self, retention: float) -> int:
        ages = (int(retention * 1000), PRUNE_BATCH, int(max(retention, DEAD_RETENTION) * 1000))
        return sum(await asyncio.gather(*(self._pen(PRUNE, prefix, *ages) for prefix in self._keys.prefixes)))

    async def close(self) -> None:
        self.home.is_closed = True
        await self._pipe.close()
        await self._reads.close()
        await self._nudges.close()
        await self._client.aclose()

    async def _late(self, kind: str, limit: int) -> Sequence[str]:
        calls = (self._pen(LATE, prefix, kind, limit) for prefix in self._keys.prefixes)
        return [task_id for ids in await asyncio.gather(*calls) for task_id in ids]


@lru_cache(maxsize=1_000)
def _started(worker: str) -> str:
    return StartedData(worker=worker).model_dump_json()


def _milliseconds(seconds: float | None) -> int | str:
    return "" if seconds is None else int(seconds * 1000)


def _digest(task: Task) -> str:
    asked = json.dumps([task.agent, task.birth.input], sort_keys=True, ensure_ascii=False)
    return blake2b(asked.encode(), digest_size=16).hexdigest()
