"""What the checker judges: the ledger, and what Redis holds when everything has come to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.core.ports import Store
from tests.acceptance.faults.ledger import Line

#: Tasks and events that are read at once.
MANY = 100_000


class Fact(NamedTuple):
    """One event of a session's log."""

    seq: int
    id: str
    type: str
    task: str | None
    attempt: int = 0
    time: float = 0.0


class Ending(NamedTuple):
    """How the record of a task stands."""

    session: str
    status: str
    output: Any = None
    reason: str | None = None


@dataclass
class Evidence:
    """All that is known about a run."""

    lines: Sequence[Line] = ()
    records: Mapping[str, Ending] = field(default_factory=dict)
    logs: Mapping[str, Sequence[Fact]] = field(default_factory=dict)
    #: What the parents have not acknowledged, by session.
    inboxes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    #: How many events of each type the metrics have counted.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: Keys, sockets and processes that should not be there, in words.
    leftovers: Sequence[str] = ()
    #: How many tasks of an agent one session may run at once.
    limits: Mapping[str, int] = field(default_factory=dict)
    #: The agents whose ends callbacks tell of.
    telling: Collection[str] = ()

    def told(self, what: str) -> list[Line]:
        """The lines of a kind."""
        return [line for line in self.lines if line.what == what]

    @property
    def facts(self) -> Iterable[tuple[str, Fact]]:
        """Every logged event with its session."""
        return ((session, fact) for session, log in self.logs.items() for fact in log)


async def collect(url: str, lines: Sequence[Line]) -> Evidence:
    """Read the records and logs of every session that the ledger names."""
    store = RedisStore(url)
    try:
        sessions = sorted({line.session for line in lines if line.session})
        records = {
            task.id: Ending(task.session_id, task.status, task.output, task.reason)
            for task in await store.tasks(limit=MANY)
        }
        logs = {session: await _log(store, session) for session in sessions}
        inboxes = {
            session: [event.seq for event in await store.inbox(session, 0, MANY)] for session in sessions
        }
        counts: Counter[str] = Counter()
        for what, number in (await store.metrics()).counts.items():
            counts[what.type] += number
        return Evidence(lines, records, logs, inboxes, counts)
    finally:
        await store.close()


async def _log(store: Store, session: str) -> list[Fact]:
    page = await store.events(session, 0, MANY)
    return [
        Fact(event.seq, event.id, event.type, event.task_id, event.attempt, event.time)
        for event in page.events
    ]


async def leftovers(url: str, client: redis.Redis) -> list[str]:
    """Forget every task as the janitor does in time, and return the keys that are left."""
    found = [f"{kind} of {prefix}" for prefix in Keys().prefixes for kind in _waiting(client, prefix)]
    found += _streams(client)
    store = RedisStore(url)
    try:
        while await store.prune(0.0):
            pass
    finally:
        await store.close()
    if waiting := client.hget(Keys().gate + "counts", "waiting"):
        found.append(f"{waiting} in line")
    return found + [key for key in _keys(client, "hermes:*") if not key.startswith(_PRESENCE)]


#: What living workers say of themselves, and what was counted.
_PRESENCE = (
    Keys().metrics,
    *(f"{Keys().gate}{kind}" for kind in ("counts", "leader", "sizes", "swept", "workers:")),
)


def _waiting(client: redis.Redis, prefix: str) -> list[str]:
    return [kind for kind in ("leases", "due") if client.exists(prefix + kind)]


def _keys(client: redis.Redis, pattern: str) -> list[str]:
    return sorted(str(key) for key in client.keys(pattern))


def _streams(client: redis.Redis) -> list[str]:
    """Messages of the broker that nobody has done with."""
    found = []
    for key in _keys(client, "hermes.*"):
        if client.type(key) != "stream":
            continue
        pending = sum(group["pending"] for group in client.xinfo_groups(key))
        if length := client.xlen(key):
            found.append(f"{length} messages in {key}")
        if pending:
            found.append(f"{pending} pending in {key}")
    return found
