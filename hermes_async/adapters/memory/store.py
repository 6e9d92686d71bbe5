"""The store in memory: the same semantics as over Redis, for tests and for `LocalHermes`."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

from hermes_async.adapters.memory.gate import MemoryGate
from hermes_async.adapters.memory.nudges import Nudges
from hermes_async.core.ports import (
    NOTHING_SWEPT,
    PUBLISH_GRACE,
    RESEND_AFTER,
    Cancelled,
    Hint,
    Page,
    Parcel,
    Renewal,
    Snapshot,
    Traffic,
)
from hermes_async.domain.agent import NO_LIMITS, GateLimits
from hermes_async.domain.errors import IdempotencyConflict
from hermes_async.domain.events import (
    INBOX_TYPES,
    AnyEvent,
    CancelRequestedData,
    StartedData,
    queued,
    task_event,
)
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import LEGAL, TARGET, UNFENCED, apply
from hermes_async.domain.refusals import parent_has_ended, too_many_wait
from hermes_async.domain.task import Lane, Task, TaskStatus

#: Seconds that a runner has to end a task itself whose total time is over.
RUNNER_IS_FIRST = 2.0


@dataclass
class _Session:
    seq: int = 0
    log: deque[AnyEvent] = field(default_factory=deque)
    inbox: dict[int, AnyEvent] = field(default_factory=dict)
    nudges: Nudges = field(default_factory=Nudges)
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
    #: The `seq` of its first event.
    born: int = 0
    lease_until: float | None = None
    #: When a retry goes on.
    due_at: float | None = None
    #: When to send its message again, and how often that was done.
    resend_at: float | None = None
    sends: int = 0
    #: When it ends by itself, and why.
    deadlines: dict[Reason, float] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    #: It waits for its children.
    aside: bool = False
    #: Of the last claim.
    token: str = ""


class MemoryStore:
    """The pen and its readers over dictionaries."""

    def __init__(
        self,
        *,
        max_length: int = 10_000,
        now: Callable[[], float] = time.time,
        limits: GateLimits = NO_LIMITS,
    ) -> None:
        self._max_length = max_length
        self._now = now
        self._max_queued = limits.max_queued
        self._gate = MemoryGate(lambda task_id: self._entries[task_id].task, self._send, limits.max_running)
        self._publish: Callable[[Sequence[str]], None] = lambda task_ids: None
        self._leader: tuple[str, float] = ("", 0.0)
        self._swept: Counter[str] = Counter()
        self._entries: dict[str, _Entry] = {}
        self._sessions: dict[str, _Session] = {}
        self._keys: dict[tuple[str, str], str] = {}

    def on_admitted(self, publish: Callable[[Sequence[str]], None]) -> None:
        self._publish = publish

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        key = (task.session_id, idempotency_key or "")
        known = self._keys.get(key) if idempotency_key else task.id
        if known in self._entries:
            return _same(self._entries[known].task, task, idempotency_key)
        self._check_room(task)
        self._join_family(task)
        event = self._stamped(queued(task))
        entry = _Entry(task.model_copy(update={"created_at": event.time}), last=event.id)
        if idempotency_key:
            self._keys[key] = task.id
        self._entries[task.id] = entry
        entry.seq = entry.born = self._log(event)
        if total := task.birth.options.total_timeout:
            entry.deadlines[Reason.TOTAL_TIMEOUT] = event.time + total + RUNNER_IS_FIRST
        self._enter(entry)
        return entry.task

    async def create_all(self, tasks: Sequence[Task], parcels: Sequence[Parcel | None]) -> Sequence[Task]:
        return [await self.create(task, parcel, None) for task, parcel in zip(tasks, parcels, strict=True)]

    async def load(self, task_id: str) -> Task | None:
        entry = self._entries.get(task_id)
        return entry.task if entry else None

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        entry = self._entries.get(task_id)
        if entry and entry.task.status is TaskStatus.RUNNING and token and entry.token == token:
            return entry.task
        if (
            entry is None
            or entry.task.status is not TaskStatus.QUEUED
            or not self._gate.has_admitted(task_id)
        ):
            return None
        entry.token = token
        next_attempt = entry.task.model_copy(update={"attempt": entry.task.attempt + 1})
        event = self._stamped(task_event(next_attempt, "task.started", StartedData(worker=worker)))
        entry.task = apply(entry.task, event)
        entry.ordinal, entry.resend_at, entry.lease_until = 0, None, self._now() + lease
        entry.deadlines.pop(Reason.EXPIRED, None)
        entry.last, entry.seq = event.id, self._log(event)
        return entry.task

    async def append(
        self,
        event: AnyEvent,
        *,
        lapsed: bool = False,
        moved: Task | None = None,
        parcel: Parcel | None = None,
    ) -> int:
        entry = self._entries.get(event.task_id or "")
        if entry is None:
            return 0
        if _is_repeated(entry, event):
            return entry.seq
        if not _admits(entry.task, event) or (lapsed and not self._has_lapsed(entry)):
            return 0
        if event.type not in UNFENCED:
            entry.ordinal = event.ordinal or entry.ordinal
        self._write(entry, event)
        return entry.seq

    async def cancel(self, task_id: str, *, force: bool, cascade: bool) -> Cancelled:
        tree = [task_id] if task_id in self._entries else []
        for parent in tree if cascade else ():
            tree += self._entries[parent].children
        running, ended = [], []
        for entry in [self._entries[each] for each in reversed(tree)]:
            if entry.task.status.is_terminal:
                continue
            if not entry.task.cancel_requested:
                asked = CancelRequestedData(force=force)
                self._write(entry, task_event(entry.task, "task.cancel_requested", asked))
            if entry.task.status is TaskStatus.QUEUED:
                self._write(entry, task_event(entry.task, "task.cancelled"))
                ended.append(entry.task.id)
            else:
                running.append(entry.task.id)
        return Cancelled(running, ended)

    async def step_aside(self, task: Task) -> None:
        entry = self._attempt(task)
        if entry is not None:
            entry.aside = True
            self._gate.leave(entry.task)

    async def step_back(self, task: Task) -> bool | None:
        entry = self._attempt(task)
        if entry is None:
            return None
        if not self._gate.has_admitted(task.id) and not self._gate.has_in_line(entry.task):
            self._enter(entry)
        entry.aside = not self._gate.has_admitted(task.id)
        return not entry.aside

    async def enlist(self, worker: str, lane: Lane, slots: int, ttl: float) -> None:
        self._gate.enlist(worker, lane, slots)

    async def lead(self, worker: str, ttl: float, swept: Mapping[str, int] = NOTHING_SWEPT) -> bool:
        leader, until = self._leader
        if leader not in ("", worker) and until > self._now():
            return False
        self._leader = (worker, self._now() + ttl)
        self._swept.update(swept)
        return True

    async def traffic(self) -> Traffic:
        leader, until = self._leader
        counts = {kind: count for kind, count in self._swept.items() if count}
        return replace(self._gate.traffic(), leader=leader if until > self._now() else None, swept=counts)

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
            list(held),
            [task_id for task_id, entry in held.items() if entry.task.cancel_requested],
            [task_id for task_id, entry in held.items() if entry.aside],
        )

    async def lapsed(self, limit: int = 100) -> Sequence[str]:
        return self._pick(limit, self._has_lapsed)

    async def overdue(self, limit: int = 100) -> Sequence[tuple[str, Reason]]:
        now = self._now()
        late = (
            (task_id, reason)
            for task_id, entry in self._entries.items()
            for reason, at in entry.deadlines.items()
            if at <= now
        )
        return list(islice(late, limit))

    async def tend(self, limit: int = 100) -> int:
        due = self._pick(limit, lambda entry: _is_over(entry.due_at, self._now()))
        for task_id in due:
            self._entries[task_id].due_at = None
            self._enter(self._entries[task_id])
        lost = self._pick(limit, lambda entry: _is_over(entry.resend_at, self._now()))
        for task_id in lost:
            self._entries[task_id].sends += 1
            self._send(task_id)
        self._gate.let_in()
        return len(due) + len(lost)

    async def published(self, task_ids: Sequence[str]) -> None:
        for entry in [self._entries[task_id] for task_id in task_ids if task_id in self._entries]:
            if entry.resend_at is not None:
                entry.resend_at = self._now() + RESEND_AFTER * 2 ** min(entry.sends, 10)

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

    def _check_room(self, task: Task) -> None:
        waiting = self._gate.waiting + sum(entry.resend_at is not None for entry in self._entries.values())
        if self._max_queued is not None and waiting >= self._max_queued:
            raise too_many_wait(task, waiting)

    def _join_family(self, task: Task) -> None:
        """Note a task with its parent task, which must be running."""
        birth = task.birth
        if birth.parent_task_id is None:
            return
        parent = self._entries.get(birth.parent_task_id)
        if parent is not None and parent.task.cancel_requested:
            raise parent_has_ended(task, "to be cancelled")
        where = parent and (parent.task.status, parent.task.attempt)
        if parent is None or where != (TaskStatus.RUNNING, birth.parent_attempt):
            raise parent_has_ended(task, "not running this attempt any more")
        parent.children.append(task.id)

    def _attempt(self, task: Task) -> _Entry | None:
        """Return the entry of a task if that attempt of it is running."""
        entry = self._entries.get(task.id)
        same = entry and (entry.task.status, entry.task.attempt) == (TaskStatus.RUNNING, task.attempt)
        return entry if same else None

    def _enter(self, entry: _Entry) -> None:
        limit = entry.task.birth.options.queue_timeout
        if limit is not None and entry.task.status is TaskStatus.QUEUED:
            entry.deadlines[Reason.EXPIRED] = self._now() + limit
        self._gate.enter(entry.task, entry.born)

    def _send(self, task_id: str) -> None:
        """Have a task's message published that has been let in; one that had stepped aside only wakes up."""
        entry = self._entries[task_id]
        if entry.task.status is TaskStatus.QUEUED:
            entry.resend_at = self._now() + PUBLISH_GRACE
            self._publish([task_id])
        else:
            self._session(entry.task.session_id).nudges.tell()

    def _write(self, entry: _Entry, event: AnyEvent) -> None:
        """Apply an event that is allowed, log it, and keep lease, place and due time as the status wants."""
        event = self._stamped(event).model_copy(update={"attempt": entry.task.attempt})
        was, entry.task = entry.task, apply(entry.task, event)
        entry.last, entry.seq = event.id, self._log(event)
        status = entry.task.status
        if status not in (TaskStatus.RUNNING, TaskStatus.INPUT_REQUIRED) and event.type in TARGET:
            self._gate.leave(was)
            self._rest(entry, event)

    def _rest(self, entry: _Entry, event: AnyEvent) -> None:
        """An attempt has ended: the next one comes when it is due, or nothing does."""
        entry.lease_until = entry.due_at = entry.resend_at = None
        entry.aside = False
        if entry.task.status.is_terminal:
            entry.deadlines.clear()
            return
        delay = 0.0 if entry.task.cancel_requested else getattr(event.data, "delay", 0.0)
        if delay > 0:
            entry.due_at = self._now() + delay
        else:
            self._enter(entry)

    def _held(self, task_id: str, worker: str) -> _Entry | None:
        entry = self._entries.get(task_id)
        return entry if entry and entry.lease_until is not None and entry.task.worker == worker else None

    def _has_lapsed(self, entry: _Entry) -> bool:
        return entry.lease_until is not None and entry.lease_until <= self._now()

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


def _is_over(at: float | None, now: float) -> bool:
    return at is not None and at <= now
