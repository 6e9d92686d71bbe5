"""The store in memory: the same semantics as over Redis, for tests and for `LocalHermes`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from hermes_async.adapters.memory.accounts import MemoryAccounts
from hermes_async.adapters.memory.census import census
from hermes_async.adapters.memory.dialogue import MemoryDialogue
from hermes_async.adapters.memory.entry import Entry, admits, is_over, is_repeated, matches
from hermes_async.adapters.memory.family import MemoryFamily
from hermes_async.adapters.memory.gate import MemoryGate
from hermes_async.adapters.memory.idempotency import MemoryKeys, same
from hermes_async.adapters.memory.ledger import MemoryLedger
from hermes_async.core.metrics import Metrics
from hermes_async.core.ports import (
    NOTHING_SWEPT,
    PUBLISH_GRACE,
    RESEND_AFTER,
    Cancelled,
    Parcel,
    Renewal,
    Snapshot,
    Traffic,
)
from hermes_async.domain.agent import NO_LIMITS, GateLimits
from hermes_async.domain.budget import Spent
from hermes_async.domain.events import (
    AnyEvent,
    StartedData,
    queued,
    task_event,
)
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import IN_VAIN, TARGET, UNFENCED, apply
from hermes_async.domain.refusals import too_many_wait
from hermes_async.domain.task import Lane, Task, TaskStatus
from hermes_async.domain.usage import Usage

#: Seconds that a runner has to end a task itself whose total time is over.
RUNNER_IS_FIRST = 2.0


class MemoryStore(MemoryDialogue):
    """The pen and its readers over dictionaries."""

    def __init__(
        self,
        *,
        max_length: int = 10_000,
        now: Callable[[], float] = time.time,
        limits: GateLimits = NO_LIMITS,
    ) -> None:
        super().__init__(max_length, now)
        self._max_queued = limits.max_queued
        self._gate = MemoryGate(lambda task_id: self._entries[task_id].task, self._send, limits.max_running)
        self._family = MemoryFamily(self._kept, self._write)
        self._accounts = MemoryAccounts(self._kept, self._counts)
        self._publish: Callable[[Sequence[str]], None] = lambda task_ids: None
        self._revoke: Callable[[Sequence[str]], None] = lambda task_ids: None
        self._leader: tuple[str, float] = ("", 0.0)
        self._swept: Counter[str] = Counter()
        self._keys = MemoryKeys(now)
        self.ledger = MemoryLedger(
            lambda task_id: self._entries[task_id].task, self._log_now, self._next_fence, now
        )

    def on_admitted(self, publish: Callable[[Sequence[str]], None]) -> None:
        self._publish = publish

    def on_cancelled(self, revoke: Callable[[Sequence[str]], None]) -> None:
        self._revoke = revoke

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        known = self._keys.find(task, idempotency_key) if idempotency_key else task.id
        if known in self._entries:
            return same(self._entries[known].task, task, idempotency_key)
        self._check_room(task)
        self._family.join(task, self._accounts.check)
        event = self._stamped(queued(task))
        entry = Entry(task.model_copy(update={"created_at": event.time}))
        self._keys.note(task, idempotency_key)
        self._entries[task.id] = entry
        entry.seq = entry.born = self._log(event)
        if total := task.birth.options.total_timeout:
            entry.deadlines[Reason.TOTAL_TIMEOUT] = event.time + total + RUNNER_IS_FIRST
        self._enter(entry)
        return entry.task

    async def create_all(self, tasks: Sequence[Task], parcels: Sequence[Parcel | None]) -> Sequence[Task]:
        return [await self.create(task, parcel, None) for task, parcel in zip(tasks, parcels, strict=True)]

    async def born(self, task_id: str) -> int:
        entry = self._entries.get(task_id)
        return entry.born if entry else 0

    async def load(self, task_id: str) -> Task | None:
        entry = self._entries.get(task_id)
        return entry.task if entry else None

    async def load_all(self, task_ids: Collection[str]) -> Sequence[Task]:
        return [self._entries[task_id].task for task_id in task_ids if task_id in self._entries]

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        entry = self._entries.get(task_id)
        if entry and entry.task.status is TaskStatus.RUNNING and token:
            return entry.task if (entry.task.claim, entry.task.worker) == (token, worker) else None
        if (
            entry is None
            or entry.task.status is not TaskStatus.QUEUED
            or not self._gate.has_admitted(task_id)
        ):
            return None
        next_attempt = entry.task.model_copy(update={"attempt": entry.task.attempt + 1})
        event = self._stamped(task_event(next_attempt, "task.started", StartedData(worker=worker)))
        entry.task = apply(entry.task, event).model_copy(update={"claim": token})
        entry.ordinal, entry.resend_at, entry.lease_until = 0, None, self._now() + lease
        entry.deadlines.pop(Reason.EXPIRED, None)
        if entry.task.attempt == 1 and (seconds := entry.task.birth.options.limits.seconds):
            entry.deadlines[Reason.BUDGET_EXCEEDED] = event.time + seconds + RUNNER_IS_FIRST
        waited = event.time - entry.task.created_at if event.attempt == 1 else None
        entry.last, entry.seq = event.id, self._log(event, waited)
        return entry.task

    async def append(
        self,
        event: AnyEvent,
        *,
        lapsed: bool = False,
        own: bool = False,
        moved: Task | None = None,
        parcel: Parcel | None = None,
    ) -> int:
        entry = self._entries.get(event.task_id or "")
        if entry is None:
            return 0
        if is_repeated(entry, event):
            return entry.seq
        if not admits(entry.task, event) or (lapsed and not self._has_lapsed(entry)):
            return 0
        if own and not entry.task.status.is_begun:
            return 0
        if event.type not in UNFENCED:
            entry.ordinal = event.ordinal or entry.ordinal
        self._write(entry, event)
        return entry.seq

    async def cancel(self, task_id: str, *, force: bool, cascade: bool) -> Cancelled:
        return self._family.cancel([task_id], below=cascade, force=force)

    async def spend(
        self, task: Task, ordinal: int, amount: Usage, *, asks: bool, model: str = ""
    ) -> Spent | None:
        return self._accounts.spend(task, ordinal, amount, asks, model)

    async def step_aside(self, task: Task) -> None:
        entry = self._attempt(task)
        if entry is not None:
            self._gate.leave(entry.task)

    async def step_back(self, task: Task) -> bool | None:
        self._withdraw_question(task)
        entry = self._attempt(task)
        if entry is None:
            return None
        if not self._gate.has_admitted(task.id) and not self._gate.has_in_line(entry.task):
            self._enter(entry)
        return self._gate.has_admitted(task.id)

    async def enlist(
        self, worker: str, lane: Lane, slots: int, ttl: float, agents: Collection[str] = ()
    ) -> None:
        now = self._now()
        self._gate.enlist(worker, lane, slots, now, now + ttl, agents)

    async def lead(self, worker: str, ttl: float, swept: Mapping[str, int] = NOTHING_SWEPT) -> bool:
        leader, until = self._leader
        if leader not in ("", worker) and until > self._now():
            return False
        self._leader = (worker, self._now() + ttl)
        self._swept.update(swept)
        return True

    async def metrics(self) -> Metrics:
        return census(self._counts, (entry.task for entry in self._entries.values()), self._now())

    async def traffic(self) -> Traffic:
        leader, until = self._leader
        counts = {kind: count for kind, count in self._swept.items() if count}
        now = self._now()
        return replace(self._gate.traffic(now), leader=leader if until > now else None, swept=counts)

    async def renew(self, worker: str, task_ids: Sequence[str], lease: float) -> Renewal:
        held = {task_id: entry for task_id in task_ids if (entry := self._held(task_id, worker))}
        for entry in held.values():
            entry.lease_until = self._now() + lease
        return Renewal(
            list(held), [task_id for task_id, entry in held.items() if entry.task.cancel_requested]
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
        due = self._pick(limit, lambda entry: is_over(entry.due_at, self._now()))
        for task_id in due:
            self._entries[task_id].due_at = None
            self._enter(self._entries[task_id])
        lost = self._pick(limit, lambda entry: is_over(entry.resend_at, self._now()))
        for task_id in lost:
            self._entries[task_id].sends += 1
            self._send(task_id)
        self._gate.let_in()
        return len(due) + len(lost)

    async def published(self, task_ids: Sequence[str]) -> None:
        for entry in [self._entries[task_id] for task_id in task_ids if task_id in self._entries]:
            if entry.resend_at is not None:
                entry.resend_at = self._now() + RESEND_AFTER * 2 ** min(entry.sends, 10)

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
        return list(islice((task for task in newest_first if matches(task, asked)), limit))

    async def prune(self, retention: float) -> int:
        horizon = self._now() - retention
        self.ledger.forget_dead(retention)
        told_of = self.ledger.tasks()
        old = [
            task_id
            for task_id, entry in self._entries.items()
            if is_over(entry.task.finished_at, horizon) and task_id not in told_of
        ]
        for task_id in old:
            del self._entries[task_id]
            self.ledger.forget(task_id)
        self._keys.keep(self._entries)
        alive = {entry.task.session_id for entry in self._entries.values()}
        self._forget_silent(horizon, alive)
        return len(old)

    async def ping(self) -> str:
        return "memory"

    async def close(self) -> None:
        self.home.is_closed = True

    def _check_room(self, task: Task) -> None:
        waiting = self._gate.waiting + sum(entry.resend_at is not None for entry in self._entries.values())
        if self._max_queued is not None and waiting >= self._max_queued:
            raise too_many_wait(task, waiting)

    def _attempt(self, task: Task) -> Entry | None:
        """Return the entry of a task if that attempt of it is running."""
        entry = self._entries.get(task.id)
        same = entry and (entry.task.status, entry.task.attempt) == (TaskStatus.RUNNING, task.attempt)
        return entry if same else None

    def _enter(self, entry: Entry) -> None:
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
            entry.nudges.tell()

    def _write(self, entry: Entry, event: AnyEvent) -> None:
        """Apply an event that is allowed, log it, and keep lease, place and due time as the status wants."""
        if event.type in IN_VAIN and entry.task.status.is_begun:
            stopped = self._family.cancel(entry.children, below=True, force=False)
            if stopped.running:
                self._revoke(stopped.running)
        event = self._stamped(event).model_copy(update={"attempt": entry.task.attempt})
        was, entry.task = entry.task, apply(entry.task, event)
        ends = was.status.is_begun and not entry.task.status.is_begun
        took = event.time - (was.started_at or event.time) if ends else None
        entry.last, entry.seq = event.id, self._log(event, took)
        self.ledger.file(entry.task, event.model_copy(update={"seq": entry.seq}))
        status = entry.task.status
        if not status.is_begun and event.type in TARGET:
            self._gate.leave(was)
            self._rest(entry, event)
            if was.status is TaskStatus.INPUT_REQUIRED:  # it need not wait
                entry.nudges.tell()

    def _rest(self, entry: Entry, event: AnyEvent) -> None:
        """An attempt has ended: the next one comes when it is due, or nothing does."""
        entry.lease_until = entry.due_at = entry.resend_at = None
        if entry.task.status.is_terminal:
            entry.deadlines.clear()
            self._close_question(entry)
            return
        delay = 0.0 if entry.task.cancel_requested else getattr(event.data, "delay", 0.0)
        if delay > 0:
            entry.due_at = self._now() + delay
        else:
            self._enter(entry)

    def _held(self, task_id: str, worker: str) -> Entry | None:
        entry = self._entries.get(task_id)
        return entry if entry and entry.lease_until is not None and entry.task.worker == worker else None

    def _has_lapsed(self, entry: Entry) -> bool:
        return entry.lease_until is not None and entry.lease_until <= self._now()

    def _pick(self, limit: int, wanted: Callable[[Entry], bool]) -> Sequence[str]:
        return list(islice((task_id for task_id, entry in self._entries.items() if wanted(entry)), limit))
