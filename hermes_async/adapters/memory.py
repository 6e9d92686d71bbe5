"""Store and queue in memory: the same semantics as the real ones, for tests and for `LocalHermes`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice

import anyio

from hermes_async.core.ports import PUBLISH_GRACE, Hint, Page, Parcel, Renewal, Snapshot
from hermes_async.domain.errors import IdempotencyConflict
from hermes_async.domain.events import INBOX_TYPES, AnyEvent, StartedData, queued, task_event
from hermes_async.domain.lifecycle import LEGAL, UNFENCED, apply
from hermes_async.domain.task import Task, TaskStatus


class _Nudges:
    """Wakes everybody who waits at the moment."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        with anyio.move_on_after(timeout):
            await self._event.wait()


@dataclass
class _Session:
    seq: int = 0
    log: deque[AnyEvent] = field(default_factory=deque)
    inbox: dict[int, AnyEvent] = field(default_factory=dict)
    nudges: _Nudges = field(default_factory=_Nudges)
    listeners: int = 0
    touched: float = 0.0
    #: The last event that was posted: its id and its `seq`.
    posted: tuple[str, int] = ("", 0)


@dataclass
class _Entry:
    task: Task
    #: The last event: its id, its `seq`, and the greatest ordinal of the present attempt.
    last: str = ""
    seq: int = 0
    ordinal: int = 0
    lease_until: float | None = None
    due_at: float | None = None
    #: Of the last claim.
    token: str = ""


class MemoryStore:
    """The pen and its readers over dictionaries."""

    def __init__(self, *, max_length: int = 10_000, now: Callable[[], float] = time.time) -> None:
        self._max_length = max_length
        self._now = now
        self._entries: dict[str, _Entry] = {}
        self._sessions: dict[str, _Session] = {}
        self._keys: dict[tuple[str, str], str] = {}

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        key = (task.session_id, idempotency_key or "")
        known = self._keys.get(key) if idempotency_key else task.id
        if known in self._entries:
            return _same(self._entries[known].task, task, idempotency_key)
        event = self._stamped(queued(task))
        born = task.model_copy(update={"created_at": event.time})
        if idempotency_key:
            self._keys[key] = task.id
        self._entries[task.id] = _Entry(
            born, last=event.id, seq=self._log(event), due_at=event.time + PUBLISH_GRACE
        )
        return born

    async def load(self, task_id: str) -> Task | None:
        entry = self._entries.get(task_id)
        return entry.task if entry else None

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        entry = self._entries.get(task_id)
        if entry and entry.task.status is TaskStatus.RUNNING and token and entry.token == token:
            return entry.task
        if entry is None or entry.task.status is not TaskStatus.QUEUED:
            return None
        entry.token = token
        next_attempt = entry.task.model_copy(update={"attempt": entry.task.attempt + 1})
        event = self._stamped(task_event(next_attempt, "task.started", StartedData(worker=worker)))
        entry.task = apply(entry.task, event)
        entry.ordinal, entry.due_at, entry.lease_until = 0, None, self._now() + lease
        entry.last, entry.seq = event.id, self._log(event)
        return entry.task

    async def append(self, event: AnyEvent, *, lapsed: bool = False) -> int:
        entry = self._entries.get(event.task_id or "")
        if entry is None:
            return 0
        if _is_repeated(entry, event):
            return entry.seq
        if not _admits(entry.task, event) or (lapsed and not self._has_lapsed(entry)):
            return 0
        event = self._stamped(event).model_copy(update={"attempt": entry.task.attempt})
        entry.task = apply(entry.task, event)
        if event.type not in UNFENCED:
            entry.ordinal = event.ordinal or entry.ordinal
        self._follow_up(entry, event)
        entry.last, entry.seq = event.id, self._log(event)
        return entry.seq

    async def post(self, event: AnyEvent) -> int:
        session = self._session(event.session_id)
        if session.posted[0] != event.id:
            session.posted = (event.id, self._log(self._stamped(event)))
        return session.posted[1]

    async def renew(self, worker: str, task_ids: Sequence[str], lease: float) -> Renewal:
        held = {task_id: entry for task_id in task_ids if (entry := self._held(task_id, worker))}
        for entry in held.values():
            entry.lease_until = self._now() + lease
        return Renewal(
            list(held), [task_id for task_id, entry in held.items() if entry.task.cancel_requested]
        )

    async def lapsed(self, limit: int = 100) -> Sequence[str]:
        return self._pick(limit, self._has_lapsed)

    async def due(self, limit: int = 100) -> Sequence[str]:
        return self._pick(limit, self._is_due)

    async def release(self, task_id: str) -> Task | None:
        entry = self._entries.get(task_id)
        if entry is None or not self._is_due(entry):
            return None
        entry.due_at = self._now() + PUBLISH_GRACE
        return entry.task

    async def published(self, task: Task) -> None:
        entry = self._entries.get(task.id)
        if entry and (entry.task.status, entry.task.attempt) == (TaskStatus.QUEUED, task.attempt):
            entry.due_at = None

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        session = self._session(session_id)
        found = list(islice((event for event in session.log if event.seq > after), limit))
        missed = bool(found) and found[0].seq > after + 1
        return Page(found, (after + 1, found[0].seq - 1) if missed else None)

    async def last_seq(self, session_id: str) -> int:
        return self._session(session_id).seq

    async def snapshot(self, session_id: str) -> Snapshot:
        tasks = await self.tasks(session_id=session_id, limit=len(self._entries))
        return Snapshot(self._session(session_id).seq, tasks)

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
        newest_first = (entry.task for entry in reversed(self._entries.values()))
        return list(islice((task for task in newest_first if _matches(task, asked)), limit))

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        entries = self._session(session_id).inbox
        return list(islice((event for seq, event in entries.items() if seq > after), limit))

    async def ack(self, session_id: str, seqs: Sequence[int]) -> int:
        entries = self._session(session_id).inbox
        return sum(entries.pop(seq, None) is not None for seq in seqs)

    @asynccontextmanager
    async def watch(self, session_id: str) -> AsyncIterator[Hint]:
        session = self._session(session_id)
        session.listeners += 1
        try:
            yield session.nudges
        finally:
            session.listeners -= 1

    async def prune(self, retention: float) -> int:
        horizon = self._now() - retention
        old = [
            task_id
            for task_id, entry in self._entries.items()
            if entry.task.finished_at is not None and entry.task.finished_at <= horizon
        ]
        for task_id in old:
            del self._entries[task_id]
        self._keys = {key: task_id for key, task_id in self._keys.items() if task_id in self._entries}
        alive = {entry.task.session_id for entry in self._entries.values()}
        for session_id, session in list(self._sessions.items()):
            if session.touched <= horizon and session_id not in alive and not session.listeners:
                del self._sessions[session_id]
        return len(old)

    async def ping(self) -> str:
        return "memory"

    async def close(self) -> None:
        return None

    def _session(self, session_id: str) -> _Session:
        return self._sessions.setdefault(session_id, _Session(touched=self._now()))

    def _stamped(self, event: AnyEvent) -> AnyEvent:
        return event.model_copy(update={"time": self._now()})

    def _log(self, event: AnyEvent) -> int:
        session = self._session(event.session_id)
        session.seq += 1
        session.touched = self._now()
        event = event.model_copy(update={"seq": session.seq})
        session.log.append(event)
        while len(session.log) > self._max_length:
            session.log.popleft()
        if event.type in INBOX_TYPES:
            session.inbox[event.seq] = event
        session.nudges.tell()
        return session.seq

    def _follow_up(self, entry: _Entry, event: AnyEvent) -> None:
        """Keep the lease and the due time as the new status wants them."""
        if entry.task.status in (TaskStatus.RUNNING, TaskStatus.INPUT_REQUIRED):
            return
        entry.lease_until = None
        if entry.task.status.is_terminal:
            entry.due_at = None
        elif event.type in ("task.retrying", "task.attempt_lost"):
            delay = 0.0 if entry.task.cancel_requested else getattr(event.data, "delay", 0.0)
            entry.due_at = self._now() + delay

    def _held(self, task_id: str, worker: str) -> _Entry | None:
        entry = self._entries.get(task_id)
        return entry if entry and entry.lease_until is not None and entry.task.worker == worker else None

    def _has_lapsed(self, entry: _Entry) -> bool:
        return entry.lease_until is not None and entry.lease_until <= self._now()

    def _is_due(self, entry: _Entry) -> bool:
        return entry.due_at is not None and entry.due_at <= self._now()

    def _pick(self, limit: int, wanted: Callable[[_Entry], bool]) -> Sequence[str]:
        return list(islice((task_id for task_id, entry in self._entries.items() if wanted(entry)), limit))


def _same(known: Task, task: Task, key: str | None) -> Task:
    if (known.agent, known.birth.input) != (task.agent, task.birth.input):
        raise IdempotencyConflict(f"idempotency key {key!r} was used with another input, by task {known.id}")
    return known


def _admits(task: Task, event: AnyEvent) -> bool:
    legal = event.type in LEGAL[task.status]
    fenced = event.type in UNFENCED or event.attempt == task.attempt
    again = event.type == "task.cancel_requested" and task.cancel_requested
    return legal and fenced and not again


def _is_repeated(entry: _Entry, event: AnyEvent) -> bool:
    same_attempt = event.attempt == entry.task.attempt and event.type not in UNFENCED
    return event.id == entry.last or (same_attempt and 0 < event.ordinal <= entry.ordinal)


def _matches(task: Task, asked: Mapping[str, object]) -> bool:
    return all(getattr(task, name) == value for name, value in asked.items())


class MemoryQueue:
    """A queue of task ids in this process; `get` gives the most urgent, then the oldest."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[str]] = {priority: deque() for priority in range(9, -1, -1)}
        self._nudges = _Nudges()
        self._on_revoke: list[Callable[[str, bool], None]] = []

    def parcel(self, task: Task) -> Parcel | None:
        return None

    async def publish(self, task: Task) -> None:
        self._waiting[task.birth.options.priority].append(task.id)
        self._nudges.tell()

    async def get(self) -> str:
        """Wait for a task id."""
        while not (waiting := next(filter(None, self._lanes()), None)):
            await self._nudges.wait(60)
        return waiting.popleft()

    def on_revoke(self, stop: Callable[[str, bool], None]) -> None:
        """Call `stop(task_id, force)` when somebody wants a task stopped."""
        self._on_revoke.append(stop)

    async def revoke(self, task_id: str, *, force: bool) -> None:
        for stop in self._on_revoke:
            stop(task_id, force)

    async def close(self) -> None:
        return None

    def _lanes(self) -> Iterable[deque[str]]:
        return self._waiting.values()
