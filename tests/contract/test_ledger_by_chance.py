"""The ledger's law, by chance: memory and Redis agree on every step, and no rule is broken in any order."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.ids import new_task_id
from hermes_async.core.ports import Store
from hermes_async.domain.callback import Call, Callback, CallbackKind
from hermes_async.domain.events import MessageData
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import Task, TaskStatus
from tests.support.chance import run_by_chance
from tests.support.values import make_event, make_task

HOUR = 3600.0
OOPS = ErrorInfo(type="E", message="no")
SAID = [MessageData(text="one"), MessageData(text="two")]
SESSIONS = ("chat", "other")
NAMES = {"on_complete": "done", "on_failure": "failed", "on_progress": "going"}
WANTED: tuple[dict[str, Any], ...] = (
    {},
    {"callbacks": NAMES},
    {"callbacks": {"on_complete": "done"}},
    {"callbacks": NAMES, "webhook": {"url": "https://example.com/hook"}},
)
ENDS = ("task.completed", "task.failed", "task.cancelled")
EVENTS = ("task.progress", "task.progress", *ENDS, "task.retrying")
WAYS = ("succeed", "fail", "put_off", "give_up")


class TwoLedgers(RuleBasedStateMachine):
    """Whatever callers do: one claim a line, in order, and one end for each row."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        #: Memory's time stands still during a step, as that of a script does; each step has its own ms.
        self.clock = self.last = time.time()
        self.stores: list[Store] = [
            MemoryStore(now=lambda: self.clock),
            RedisStore(self.url, namespace=uuid4().hex),
        ]
        self.tasks: list[Task] = []
        self.calls: list[Call] = []
        #: The claims that last, by line; and the rows that came to their end.
        self.live: dict[str, Call] = {}
        self.over: set[str] = set()
        #: The latest of each line.
        self.fences: dict[str, int] = {}

    def teardown(self) -> None:
        try:
            self.nobody_waits_for_nothing()
        finally:
            for store in self.stores:
                self.runner.run(store.close())
            self.runner.close()

    def both(self, ask: Any) -> Any:
        """Ask both stores the same; they must give the same answer."""
        while int((now := time.time()) * 1000) <= int(self.last * 1000):
            time.sleep(0.0002)
        self.clock = now

        async def answers() -> list[Any]:
            return [await ask(store) for store in self.stores]

        first, second = self.runner.run(answers())
        self.last = time.time()
        assert timeless(first) == timeless(second)
        return second

    def task(self, number: int) -> Task | None:
        task = self.tasks[number % len(self.tasks)]
        found: Task | None = self.both(lambda store: store.load(task.id))
        return found

    def waiting(self) -> list[Callback]:
        async def ask(store: Store) -> Any:
            return sorted(await store.ledger.callbacks(dead=False, limit=1000), key=lambda row: row.id)

        found: list[Callback] = self.both(ask)
        return found

    def line_of(self, row: Callback) -> str:
        if row.kind is CallbackKind.WEBHOOK:
            return row.id
        [task] = [task for task in self.tasks if task.id == row.task_id]
        return row.session_id if task.birth.ordered else row.task_id

    # -- tasks -------------------------------------------------------------------------------------------
    @rule(session_id=st.sampled_from(SESSIONS), wanted=st.sampled_from(WANTED), ordered=st.booleans())
    def create(self, session_id: str, wanted: dict[str, Any], ordered: bool) -> None:
        task = make_task(session_id, id=new_task_id(session_id), input={}, options=wanted)
        task = task.model_copy(update={"birth": task.birth.model_copy(update={"ordered": ordered})})
        self.both(lambda store: store.create(task, None, None))
        self.tasks.append(task)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), type_=st.sampled_from(EVENTS), n=st.integers(1, 9))
    def work(self, number: int, type_: str, n: int) -> None:
        task = self.task(number)
        if task is None:
            return
        if task.status is TaskStatus.QUEUED:
            task = self.both(lambda store: store.claim(task.id, "w1", HOUR))
        event = make_event(task, type_, n=n if type_ == "task.progress" else "")
        self.both(lambda store: store.append(event))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9))
    def cancel(self, number: int) -> None:
        task_id = self.tasks[number % len(self.tasks)].id
        self.both(lambda store: store.cancel(task_id, force=False, cascade=True))

    @rule()
    def prune(self) -> None:
        rows = self.waiting()
        self.both(lambda store: store.prune(0.0))
        assert self.waiting() == rows
        if any(self.seq_of(session_id) == 0 for session_id in SESSIONS):
            self.fences.clear()  # a session that begins anew counts from one
        for row in rows:
            assert self.both(lambda store, row=row: store.load(row.task_id)) is not None

    # -- callers -----------------------------------------------------------------------------------------
    @rule(lease=st.sampled_from([0.0, HOUR, HOUR]), webhooks=st.sampled_from([False, False, True]))
    def claim(self, lease: float, webhooks: bool) -> None:
        before = self.waiting()
        call = self.both(lambda store: store.ledger.claim(lease, webhooks=webhooks))
        if call is None:
            return
        row, line = call.callback, self.line_of(call.callback)
        assert line not in self.live
        assert (row.kind is CallbackKind.WEBHOOK) is webhooks
        ended = call.task.status.is_terminal
        stale = {each.id for each in before if each.kind is CallbackKind.ON_PROGRESS and ended}
        mine = [each.seq for each in before if self.line_of(each) == line and each.id not in stale]
        assert row.seq == min(mine)
        assert call.fence > self.fences.get(line, 0)
        self.fences[line] = call.fence
        assert row.id not in self.over
        assert not (row.kind is CallbackKind.ON_PROGRESS and ended)
        self.calls.append(call)
        if lease:
            self.live[line] = call

    @precondition(lambda self: self.calls)
    @rule(
        back=st.sampled_from([1, 1, 1, 2, 3, 5]),
        how=st.sampled_from(WAYS),
        delay=st.sampled_from([0.0, 0.0, HOUR]),
        times=st.integers(1, 2),
    )
    def settle(self, back: int, how: str, delay: float, times: int) -> None:
        call = self.calls[-min(back, len(self.calls))]
        arguments = {"succeed": (SAID,), "fail": (OOPS, delay), "put_off": (delay,), "give_up": (OOPS,)}[how]
        seq = self.seq(call)
        done = self.both(lambda store: getattr(store.ledger, how)(call, *arguments))
        written = self.seq(call) - seq
        if written:
            assert done
            assert written == {"succeed": 3, "fail": 1, "put_off": 0, "give_up": 1}[how]
        if written and how in ("succeed", "give_up"):
            assert call.id not in self.over
            self.over.add(call.id)
        line = self.line_of(call.callback)
        if done and self.live.get(line) is call:
            del self.live[line]
        assert self.live.get(line) is not call or not done
        for _ in range(times - 1):
            assert self.both(lambda store: getattr(store.ledger, how)(call, *arguments)) is done
            assert self.seq(call) == seq + written

    def seq(self, call: Call) -> int:
        return self.seq_of(call.callback.session_id)

    def seq_of(self, session_id: str) -> int:
        seq: int = self.both(lambda store: store.last_seq(session_id))
        return seq

    @precondition(lambda self: len(self.tasks) > 3)
    @rule()
    def start_over(self) -> None:
        """Everything ends and is told of, and is forgotten."""
        for number in range(len(self.tasks)):
            self.cancel(number)
            self.work(number, "task.completed", 1)
        self.nobody_waits_for_nothing()
        self.prune()

    @precondition(lambda self: self.calls)
    @rule(back=st.integers(1, 5), lease=st.sampled_from([0.0, HOUR]))
    def renew(self, back: int, lease: float) -> None:
        calls = self.calls[-back:]
        held = self.both(lambda store: store.ledger.renew(calls, lease))
        assert {call.id for call in self.live.values() if call in calls} <= set(held)
        lines = {self.line_of(call.callback): call for call in calls if call.id in held}
        for line, call in lines.items():
            if lease:
                self.live[line] = call
            else:
                self.live.pop(line, None)

    @precondition(lambda self: self.calls)
    @rule(back=st.integers(1, 5), key=st.sampled_from(["a", "b"]), value=st.none() | st.integers())
    def remember(self, back: int, key: str, value: int | None) -> None:
        call = self.calls[-min(back, len(self.calls))]
        if self.both(lambda store: store.ledger.remember(call, key, value)):
            assert self.both(lambda store: store.ledger.remembered(call))[key] == value

    @precondition(lambda self: self.calls)
    @rule(back=st.integers(1, 9), again=st.sampled_from([True, True, False]))
    def revive(self, back: int, again: bool) -> None:
        callback_id = self.calls[-min(back, len(self.calls))].id
        ask = "redeliver" if again else "discard"
        if self.both(lambda store: getattr(store.ledger, ask)(callback_id)) and again:
            self.over.remove(callback_id)

    # -- what must hold ----------------------------------------------------------------------------------
    @invariant()
    def both_hold_the_same(self) -> None:
        async def ask(store: Store) -> Any:
            backlog = await store.ledger.backlog()
            rows = await store.ledger.callbacks(dead=True, limit=1000)
            due = [await store.ledger.due_in(webhooks=webhooks) for webhooks in (False, True)]
            return (
                (backlog.waiting, backlog.dead, backlog.oldest is None),
                sorted((timeless(row) for row in rows), key=lambda row: row.id),
                [each if each is None else round(each, -2) for each in due],
            )

        self.both(ask)

    @invariant()
    def the_logs_agree(self) -> None:
        for session_id in SESSIONS:

            async def ask(store: Store, session_id: str = session_id) -> Any:
                page = await store.events(session_id, 0, 1000)
                return [event.model_copy(update={"time": 0.0}) for event in page.events]

            ids = [event.id for event in self.both(ask)]
            assert len(set(ids)) == len(ids)

    @invariant()
    def the_counts_agree(self) -> None:
        async def ask(store: Store) -> Any:
            return (await store.metrics()).counts

        self.both(ask)

    def nobody_waits_for_nothing(self) -> None:
        """Whoever still waits when all that can be claimed is told is behind somebody who has a reason."""
        for webhooks in (False, True):
            while call := self.both(lambda store: store.ledger.claim(HOUR, webhooks=webhooks)):  # noqa: B023
                assert self.both(lambda store, call=call: store.ledger.succeed(call))
                assert call.id not in self.over
                self.over.add(call.id)
        heads: dict[str, Callback] = {}
        for row in sorted(self.waiting(), key=lambda row: row.seq):
            heads.setdefault(self.line_of(row), row)
        for line, head in heads.items():
            assert line in self.live or head.due_at is not None


def timeless(value: Any) -> Any:
    """What two stores can agree on: the clocks differ."""
    if isinstance(value, Task):
        times = ("created_at", "queued_at", "started_at", "finished_at")
        return value.model_copy(update={name: getattr(value, name) is None for name in times})
    if isinstance(value, Callback):
        log = tuple(each.error for each in value.log)
        return value.model_copy(update={"log": log, "due_at": value.due_at is None})
    if isinstance(value, Call):
        return timeless(value.callback), timeless(value.task), value.fence
    if isinstance(value, list):
        return [timeless(each) for each in value]
    return value


@pytest.mark.timeout(240)
def test_memory_and_redis_agree_and_no_rule_is_broken(redis_url: str) -> None:
    TwoLedgers.url = redis_url
    run_by_chance(TwoLedgers, steps=50)
