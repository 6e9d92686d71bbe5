"""The ledger in memory: the same lines as `redis_store/lua/ledger.lua`, which explains them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice

from pydantic import BaseModel, JsonValue

from hermes_async.adapters.memory.endpoints import MemoryEndpoints
from hermes_async.adapters.memory.nudges import Nudges
from hermes_async.core.hint import Hint
from hermes_async.core.ids import partition
from hermes_async.core.ledger import DEAD_RETENTION, Backlog
from hermes_async.domain.callback import (
    AFTER,
    CALLER_LOST,
    KEPT_TRIES,
    Call,
    Callback,
    CallbackKind,
    Try,
    callback_id,
    name_of,
    public_name,
    wanted,
)
from hermes_async.domain.events import AnyEvent, CallbackData, MessageData, callback_event
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import Task


@dataclass
class _Row:
    callback: Callback
    line: str
    #: When it was filed, or died.
    at: float
    kept: dict[str, JsonValue] = field(default_factory=dict)

    def change(self, **values: object) -> None:
        self.callback = self.callback.model_copy(update=values)


@dataclass
class _Line:
    is_webhook: bool
    #: The rows that wait, by their ids, and when the first of them can be claimed.
    rows: dict[str, _Row] = field(default_factory=dict)
    ready_at: float = 0.0
    #: The fence and the row of the claim.
    claim: tuple[int, str] | None = None

    @property
    def head(self) -> _Row:
        return min(self.rows.values(), key=lambda row: row.callback.seq)


class MemoryLedger(MemoryEndpoints):
    """The rows of callbacks.

    Args:
        task_of: finds the record of a task.
        log: writes an event of a session.
        next_fence: counts the claims of a session.
        now: the clock, in Unix seconds.
    """

    def __init__(
        self,
        task_of: Callable[[str], Task],
        log: Callable[[AnyEvent], int],
        next_fence: Callable[[str], int],
        now: Callable[[], float],
    ) -> None:
        super().__init__(now)
        self._task_of = task_of
        self._log = log
        self._next_fence = next_fence
        self._nudges = Nudges()
        self._rows: dict[str, _Row] = {}
        self._lines: dict[str, _Line] = {}
        self._callers: dict[str, float] = {}
        #: By task and kind: the latest way in which a call has ended, and its fence.
        self._receipts: dict[tuple[str, CallbackKind], tuple[str, int]] = {}

    def file(self, task: Task, event: AnyEvent) -> None:
        """File what an event of a task, which it has changed to this, makes due."""
        wants = wanted(task.birth.options)
        if not wants:
            return
        waiting = [row for row in self._of(task, CallbackKind.ON_PROGRESS) if not self._is_called(row)]
        if task.status.is_terminal:
            for row in waiting:
                self._remove(row)
        for kind in AFTER.get(event.type, ()):
            if kind in wants and not (kind is CallbackKind.ON_PROGRESS and waiting):
                self._add(task, kind, event.seq)

    def tasks(self) -> Collection[str]:
        """Return the tasks that have rows, waiting or dead."""
        return {row.callback.task_id for row in self._rows.values()}

    def forget(self, task_id: str) -> None:
        """Forget how the calls of a task have ended."""
        for kind in CallbackKind:
            self._receipts.pop((task_id, kind), None)

    def forget_dead(self, retention: float) -> None:
        """Forget rows that have been dead for long enough."""
        horizon = self._now() - max(retention, DEAD_RETENTION)
        self._rows = {
            id_: row for id_, row in self._rows.items() if not row.callback.dead or row.at > horizon
        }

    async def claim(self, lease: float, *, webhooks: bool = False) -> Call | None:
        while line_id := self._first(webhooks):
            line, now = self._lines[line_id], self._now()
            if line.ready_at > now:
                break
            if line.claim:
                self._note(self._rows[line.claim[1]], CALLER_LOST)
                line.claim = None
            row = line.head
            task = self._task_of(row.callback.task_id)
            if row.callback.kind is CallbackKind.ON_PROGRESS and task.status.is_terminal:
                self._remove(row)
                continue
            fence = self._next_fence(task.session_id)
            line.claim, line.ready_at = (fence, row.callback.id), now + lease
            row.change(due_at=None)
            return Call(row.callback, task, fence)
        return None

    async def renew(self, calls: Sequence[Call], lease: float) -> Sequence[str]:
        held = {call.id: row for call in calls if (row := self._claimed(call))}
        for row in held.values():
            self._lines[row.line].ready_at = self._now() + lease
        return list(held)

    async def succeed(self, call: Call, messages: Sequence[MessageData] = ()) -> bool:
        row = self._to_settle("succeed", call)
        if row is None:
            return self._was("succeed", call)
        for number, message in enumerate(messages, 1):
            self._tell(call, "session.message", number, message)
        self._tell(call, "callback.succeeded", f"{call.fence}:succeeded", _data(call))
        self._remove(row)
        return True

    async def fail(self, call: Call, error: ErrorInfo, delay: float) -> bool:
        row = self._to_settle("fail", call)
        if row is None:
            return self._was("fail", call)
        self._note(row, error)
        self._tell(call, "callback.failed", f"{call.fence}:failed", _data(call, error))
        self._again(row, delay)
        return True

    async def put_off(self, call: Call, delay: float) -> bool:
        row = self._to_settle("put_off", call)
        if row is None:
            return self._was("put_off", call)
        self._again(row, delay)
        return True

    async def give_up(self, call: Call, error: ErrorInfo) -> bool:
        row = self._to_settle("give_up", call)
        if row is None:
            return self._was("give_up", call)
        self._note(row, error)
        self._tell(call, "callback.dead", f"{call.fence}:dead", _data(call, error))
        self._remove(row)
        if call.callback.kind is not CallbackKind.ON_PROGRESS:
            row.change(dead=True)
            row.at = self._now()
            self._rows[call.id] = row
        return True

    async def redeliver(self, callback_id: str) -> bool:
        row = self._dead(callback_id)
        if row is None:
            return False
        row.change(dead=False, failures=0)
        self._stand(row)
        return True

    async def discard(self, callback_id: str) -> bool:
        return self._dead(callback_id) is not None and self._rows.pop(callback_id) is not None

    async def remember(self, call: Call, key: str, value: JsonValue) -> bool:
        row = self._claimed(call)
        if row is None:
            return False
        row.kept[key] = value
        return True

    async def remembered(self, call: Call) -> Mapping[str, JsonValue]:
        row = self._rows.get(call.id)
        return dict(row.kept) if row else {}

    async def callbacks(
        self, *, session_id: str | None = None, dead: bool | None = None, limit: int = 50
    ) -> Sequence[Callback]:
        rows = sorted(self._rows.values(), key=lambda row: (row.at, row.callback.id))
        found = (row.callback for row in rows)
        mine = (row for row in found if session_id in (None, row.session_id) and dead in (None, row.dead))
        return list(islice(mine, limit))

    async def backlog(self) -> Backlog:
        now = self._now()
        waiting = [row.at for row in self._rows.values() if not row.callback.dead]
        oldest = max(0.0, now - min(waiting)) if waiting else None
        callers = sum(until > now for until in self._callers.values())
        return Backlog(len(waiting), len(self._rows) - len(waiting), oldest, callers)

    async def enlist(self, caller: str, ttl: float) -> None:
        self._callers[caller] = self._now() + ttl
        self._callers = {who: until for who, until in self._callers.items() if until > self._now()}

    async def due_in(self, *, webhooks: bool = False) -> float | None:
        line_id = self._first(webhooks)
        return max(0.0, self._lines[line_id].ready_at - self._now()) if line_id else None

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Hint]:
        yield self._nudges

    def _first(self, webhooks: bool) -> str | None:
        """Return the line that can be claimed first."""
        lines = (line_id for line_id, line in self._lines.items() if line.is_webhook is webhooks)
        return min(lines, key=lambda line_id: (self._lines[line_id].ready_at, line_id), default=None)

    def _of(self, task: Task, kind: CallbackKind) -> list[_Row]:
        rows = self._rows.values()
        return [row for row in rows if (row.callback.task_id, row.callback.kind) == (task.id, kind)]

    def _add(self, task: Task, kind: CallbackKind, seq: int) -> None:
        id_ = callback_id(task.id, kind, seq)
        callback = Callback(
            id=id_,
            kind=kind,
            name=name_of(task.birth.options, kind),
            session_id=task.session_id,
            task_id=task.id,
            seq=seq,
        )
        line = f"p{partition(task.session_id):02d}/{task.session_id}" if task.birth.ordered else task.id
        row = _Row(callback, id_ if kind is CallbackKind.WEBHOOK else line, self._now())
        self._rows[id_] = row
        self._stand(row)

    def _stand(self, row: _Row) -> None:
        """A row takes its place in its line."""
        row.at = self._now()
        line = self._lines.setdefault(row.line, _Line(row.callback.kind is CallbackKind.WEBHOOK))
        line.rows[row.callback.id] = row
        if line.head is row and not line.claim:
            self._go_on(line)

    def _remove(self, row: _Row) -> None:
        """A row is over, and its line goes on if it was its turn."""
        del self._rows[row.callback.id]
        line = self._lines[row.line]
        first = line.head is row
        del line.rows[row.callback.id]
        if self._is_called(row) or (first and not line.claim):
            line.claim = None
            if line.rows:
                self._go_on(line)
            else:
                del self._lines[row.line]

    def _go_on(self, line: _Line) -> None:
        """A line that nobody has claimed any more goes on with its head."""
        line.claim, line.ready_at = None, max(self._now(), line.head.callback.due_at or 0.0)
        self._nudges.tell()

    def _again(self, row: _Row, delay: float) -> None:
        """A row is tried once more, unless it tells of the progress of what has ended."""
        task = self._task_of(row.callback.task_id)
        line = self._lines[row.line]
        if row.callback.kind is CallbackKind.ON_PROGRESS:
            if task.status.is_terminal:
                return self._remove(row)
            for newer in self._of(task, CallbackKind.ON_PROGRESS):
                if newer is not row:  # one that tells of the newest progress is enough
                    self._remove(newer)
        row.change(due_at=self._now() + delay)
        self._go_on(line)
        return None

    def _note(self, row: _Row, error: ErrorInfo) -> None:
        log = (*row.callback.log, Try(at=self._now(), error=error))
        row.change(failures=row.callback.failures + 1, log=log[-KEPT_TRIES:])

    def _is_called(self, row: _Row) -> bool:
        line = self._lines.get(row.line)
        return bool(line and line.claim and line.claim[1] == row.callback.id)

    def _claimed(self, call: Call) -> _Row | None:
        """Return the row of a call whose claim still stands."""
        row = self._rows.get(call.id)
        line = self._lines.get(row.line) if row else None
        return row if line and line.claim == (call.fence, call.id) else None

    def _to_settle(self, how: str, call: Call) -> _Row | None:
        row = None if self._was(how, call) else self._claimed(call)
        if row:
            self._receipts[call.callback.task_id, call.callback.kind] = (how, call.fence)
        return row

    def _was(self, how: str, call: Call) -> bool:
        """Return whether a call has ended like this before: the reply to that was lost."""
        return self._receipts.get((call.callback.task_id, call.callback.kind)) == (how, call.fence)

    def _dead(self, callback_id: str) -> _Row | None:
        row = self._rows.get(callback_id)
        return row if row and row.callback.dead else None

    def _tell(self, call: Call, type_: str, word: int | str, data: BaseModel) -> None:
        task = self._task_of(call.callback.task_id)
        self._log(callback_event(task, f"{call.id}:{word}", type_, data))


def _data(call: Call, error: ErrorInfo | None = None) -> CallbackData:
    return CallbackData(name=public_name(call.callback), error=error)
