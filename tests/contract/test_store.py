"""What every store must do, and that memory does it as Redis does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
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
from hermes_async.core.dialogue import RECENT
from hermes_async.core.ids import new_task_id, partition
from hermes_async.core.ports import Cancelled, Parcel, Store
from hermes_async.domain.agent import GateLimits, RunLimits
from hermes_async.domain.budget import Budget
from hermes_async.domain.errors import IdempotencyConflict, TaskRejected
from hermes_async.domain.events import INBOX_TYPES, AnyEvent, MessageData, RetryingData, SessionMessage
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.lifecycle import DIALOGUE, LEGAL, apply
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Address, Lane, Task, TaskStatus
from hermes_async.domain.usage import Usage
from tests.contract.conftest import MakeStore, closing
from tests.contract.steps import LEASE, claimed, loaded
from tests.support.chance import run_by_chance
from tests.support.servers import wait_until_async
from tests.support.values import DATA, falling, folded, make_event, make_task, suspect

pytestmark = pytest.mark.anyio


async def born(store: Store, session_id: str = "chat", **options: Any) -> Task:
    return await store.create(make_task(session_id, **options), None, None)


async def running(store: Store, session_id: str = "chat", lease: float = LEASE, **options: Any) -> Task:
    task = await born(store, session_id, **options)
    return await claimed(store, task, lease)


async def log(store: Store, session_id: str = "chat", after: int = 0) -> list[AnyEvent]:
    """The whole log, page by page."""
    found: list[AnyEvent] = []
    while (page := await store.events(session_id, after, 100)).events:
        found += page.events
        after = found[-1].seq
    return found


def said(text: str, session_id: str = "chat", id: str = "") -> AnyEvent:
    return SessionMessage(
        id=id or uuid4().hex, type="session.message", session_id=session_id, data=MessageData(text=text)
    )


async def test_many_records_are_read_at_once(store: Store) -> None:
    tasks = [await born(store) for _ in range(3)]
    absent = make_task().id
    assert await store.load_all([absent]) == await store.load_all([]) == []
    found = await store.load_all([tasks[2].id, absent, tasks[0].id])
    assert found == [tasks[2], tasks[0]]


# -- create ----------------------------------------------------------------------------------------------
async def test_a_created_task_is_queued_and_told(store: Store) -> None:
    task = make_task(options={"timeout": None, "retry_limit": 2, "priority": 9})
    before = time.time()
    written = await store.create(task, None, None)
    assert before - 1 < written.created_at < time.time() + 1
    assert written == task.model_copy(update={"created_at": written.created_at})
    assert await store.load(task.id) == written
    [event] = await log(store)
    assert (event.type, event.id, event.seq) == ("task.queued", f"{task.id}:0:queued", 1)
    assert (event.task_id, event.trace_id, event.attempt) == (task.id, task.birth.trace_id, 0)
    assert (event.data.subagent, event.data.priority) == ("echo", 9)
    assert event.time == written.created_at


async def test_creating_again_changes_nothing(store: Store) -> None:
    task = make_task()
    first = await store.create(task, None, None)
    await claimed(store, task)
    assert (await store.create(task, None, None)).status is TaskStatus.RUNNING
    assert first.status is TaskStatus.QUEUED
    assert len(await log(store)) == 2


async def test_many_are_created_in_their_order(store: Store) -> None:
    let_in = listening(store)
    tasks = [make_task("chat" if n % 3 else "other") for n in range(20)]
    written = await store.create_all(tasks, [None] * 20)
    assert [task.id for task in written] == let_in == [task.id for task in tasks]
    assert [await loaded(store, task) for task in tasks] == list(written)
    for session_id in ("chat", "other"):
        mine = [task.id for task in tasks if task.session_id == session_id]
        assert [event.task_id for event in await log(store, session_id)] == mine
    assert await store.create_all([], []) == []


async def test_of_many_the_first_stand_when_there_are_too_many(make_store: MakeStore) -> None:
    async with closing(make_store(limits=GateLimits(max_queued=3))) as store:
        let_in = listening(store)
        tasks = [make_task() for _ in range(6)]
        with pytest.raises(TaskRejected, match="3 tasks wait already"):
            await store.create_all(tasks, [None] * 6)
        assert let_in == [task.id for task in tasks[:3]]
        assert {task.id for task in await store.tasks()} == set(let_in)


async def test_an_idempotency_key_stands_for_one_task(store: Store) -> None:
    first, again = make_task(input={"a": [1, "ü"]}), make_task(input={"a": [1, "ü"]})
    await store.create(first, None, "key")
    assert (await store.create(again, None, "key")).id == first.id
    assert await store.load(again.id) is None
    assert len(await log(store)) == 1


async def test_an_idempotency_key_stands_for_its_task_when_another_agent_has_taken_over(store: Store) -> None:
    task = make_task(input={"a": 1}, options={"fallback": "spare"}, fallback=Address())
    await store.create(task, None, "key")
    event = falling(await claimed(store, task))
    await store.append(event, moved=apply(await loaded(store, task), event))
    found = await store.create(make_task(input={"a": 1}), None, "key")
    assert (found.id, found.agent) == (task.id, "spare")


async def test_an_idempotency_key_belongs_to_its_session(store: Store) -> None:
    elsewhere = make_task("other")
    await store.create(make_task(), None, "key")
    assert (await store.create(elsewhere, None, "key")).id == elsewhere.id


@pytest.mark.parametrize("other", [{"input": {"a": 2}}, {"agent": "shout"}])
async def test_an_idempotency_key_with_another_input_is_a_conflict(store: Store, other: Any) -> None:
    first = make_task(input={"a": 1})
    await store.create(first, None, "key")
    with pytest.raises(IdempotencyConflict, match=f"'key'.*{first.id}"):
        await store.create(make_task(**{"input": {"a": 1}, **other}), None, "key")


async def test_concurrent_creation_under_one_key_makes_one_task(store: Store) -> None:
    tasks = [make_task(input={}) for _ in range(20)]
    written = await asyncio.gather(*(store.create(task, None, "key") for task in tasks))
    assert len({task.id for task in written}) == 1
    assert len(await log(store)) == 1


async def test_an_unknown_task_is_nothing(store: Store) -> None:
    nobody = make_task()
    assert await store.load(nobody.id) is None
    assert await store.claim(nobody.id, "w1", LEASE) is None
    assert await store.append(make_event(nobody, "task.cancelled")) == 0
    await store.step_aside(nobody)
    assert await store.step_back(nobody) is None
    assert await store.cancel(nobody.id, force=False, cascade=True) == Cancelled([], [])
    await store.published([nobody.id])
    assert await log(store) == []
    assert await store.last_seq("chat") == 0


# -- claim -----------------------------------------------------------------------------------------------
async def test_a_claim_starts_the_next_attempt(store: Store) -> None:
    task = await running(store)
    assert (task.status, task.attempt, task.worker) == (TaskStatus.RUNNING, 1, "w1")
    assert task.started_at is not None
    assert task == await loaded(store, task)
    event = (await log(store))[-1]
    assert (event.type, event.attempt, event.data.worker) == ("task.started", 1, "w1")
    assert event.id == f"{task.id}:1:started"
    assert await store.claim(task.id, "w2", LEASE) is None


async def test_of_concurrent_claims_one_wins(store: Store) -> None:
    task = await born(store)
    claims = await asyncio.gather(*(store.claim(task.id, f"w{n}", LEASE) for n in range(20)))
    [winner] = [claim for claim in claims if claim]
    assert (await loaded(store, task)).worker == winner.worker


async def test_a_claim_may_be_repeated_with_its_token_while_it_stands(store: Store) -> None:
    task = await born(store)
    first = await store.claim(task.id, "w1", LEASE, "token")
    assert await store.claim(task.id, "w1", LEASE, "token") == first == await store.load(task.id)
    assert first is not None
    assert first.claim == "token"
    assert await store.claim(task.id, "w1", LEASE, "other") is None
    assert await store.claim(task.id, "w2", LEASE, "token") is None  # another worker counts for itself
    assert await store.claim(task.id, "w1", LEASE) is None
    assert [event.type for event in await log(store)] == ["task.queued", "task.started"]
    await store.append(make_event(first, "task.completed"))
    assert await store.claim(task.id, "w1", LEASE, "token") is None


async def test_the_next_attempt_forgets_the_progress_of_the_last(store: Store) -> None:
    task = await running(store)
    await store.append(make_event(task, "task.progress", n=1))
    await store.append(make_event(task, "task.retrying"))
    second = await claimed(store, task)
    assert (second.attempt, second.progress, second.failures) == (2, None, 1)
    assert await store.append(make_event(second, "task.progress", n=1)) > 0
    assert (await loaded(store, second)).progress == DATA["task.progress"]


@pytest.mark.parametrize("end", ["task.completed", "task.failed", "task.cancelled"])
async def test_an_ended_task_cannot_be_claimed(store: Store, end: str) -> None:
    task = await running(store)
    await store.append(make_event(task, end))
    assert await store.claim(task.id, "w1", LEASE) is None


# -- append ----------------------------------------------------------------------------------------------
async def in_status(store: Store, status: TaskStatus) -> Task:
    """A fresh task in that status."""
    ways: dict[TaskStatus, Sequence[str]] = {
        TaskStatus.QUEUED: (),
        TaskStatus.REJECTED: ("task.rejected",),
        TaskStatus.RUNNING: ("claim",),
        TaskStatus.INPUT_REQUIRED: ("claim", "ask"),
        TaskStatus.COMPLETED: ("claim", "task.completed"),
        TaskStatus.FAILED: ("claim", "task.failed"),
        TaskStatus.CANCELLED: ("claim", "task.cancelled"),
    }
    task = await born(store)
    for step in ways[status]:
        if step == "claim":
            task = await claimed(store, task)
        elif step == "ask":
            assert await store.ask(task, DATA["task.input_required"])
        else:
            assert await store.append(make_event(task, step))
    assert (await loaded(store, task)).status is status
    return await loaded(store, task)


@pytest.mark.parametrize("status", TaskStatus)
async def test_the_record_takes_what_the_law_allows_and_nothing_else(
    store: Store, status: TaskStatus
) -> None:
    taken = set()
    for type_ in DATA:
        task = await in_status(store, status)
        before = await store.last_seq("chat")
        if await store.append(make_event(task, type_)) > before:
            taken.add(type_)
        else:
            assert await loaded(store, task) == task
    assert taken == LEGAL[status] - DIALOGUE


async def test_the_log_gives_back_what_was_written(store: Store) -> None:
    task = await running(store)
    wrote = [make_event(task, "task.partial", n=1), make_event(task, "task.completed")]
    seqs = [await store.append(event) for event in wrote]
    read = (await log(store))[-2:]
    assert [event.seq for event in read] == seqs
    assert [event.model_copy(update={"seq": 0, "time": 0.0}) for event in read] == wrote
    assert await loaded(store, task) == folded(task, await log(store))


async def test_partials_are_kept_by_name_over_attempts(store: Store) -> None:
    task = await running(store)
    for n, (name, value) in enumerate([("a", 1), ("b", None), ("a", [2])], 1):
        data = DATA["task.partial"].model_copy(update={"name": name, "value": value})
        await store.append(make_event(task, "task.partial", data, n=n))
    await store.append(make_event(task, "task.retrying"))
    assert (await claimed(store, task)).partials == {"a": [2], "b": None}


async def test_an_older_attempt_is_refused(store: Store) -> None:
    first = await running(store)
    await store.append(make_event(first, "task.attempt_lost"))
    second = await claimed(store, first)
    for type_ in ("task.progress", "task.completed", "task.failed", "session.message"):
        assert await store.append(make_event(first, type_)) == 0
    assert await loaded(store, second) == second


async def test_a_cancel_needs_no_attempt_and_counts_once(store: Store) -> None:
    queued = await born(store)
    await claimed(store, queued)
    first = await store.append(make_event(queued, "task.cancel_requested"))
    assert (await loaded(store, queued)).cancel_requested
    assert (await log(store))[-1].attempt == 1
    await store.append(make_event(await loaded(store, queued), "task.progress", n=1))
    assert await store.append(make_event(await loaded(store, queued), "task.cancel_requested")) == 0
    assert [e.seq for e in await log(store) if e.type == "task.cancel_requested"] == [first]


async def test_repeating_the_last_event_gives_its_seq_again(store: Store) -> None:
    task = await running(store)
    for type_, n in (("task.progress", 1), ("task.completed", "")):
        event = make_event(task, type_, n=n)
        seq = await store.append(event)
        assert seq == await store.append(event) == await store.last_seq("chat")


async def test_ordinals_that_were_written_are_not_written_again(store: Store) -> None:
    task = await running(store)
    for n in (1, 2, 3, 2, 1, 3, 4):
        assert await store.append(make_event(task, "session.message", n=n)) > 0
    written = [event.id for event in await log(store) if event.type == "session.message"]
    assert written == [f"{task.id}:1:{n}" for n in (1, 2, 3, 4)]


async def test_what_is_said_to_an_agent_leaves_its_own_ordinals_alone(store: Store) -> None:
    task = await running(store)
    assert await store.say(make_event(task, "task.message", n=50))
    before = await store.last_seq("chat")
    assert await store.append(make_event(task, "task.progress", n=1)) == before + 1


@pytest.mark.parametrize("end", ["task.failed", "task.cancelled", "task.completed"])
async def test_an_attempt_that_was_lost_does_not_end_its_task(store: Store, end: str) -> None:
    task = await running(store)
    assert await store.append(make_event(task, "task.progress", n=1), own=True)
    await store.append(make_event(task, "task.attempt_lost"))
    assert await store.append(make_event(task, end), own=True) == 0
    assert (await loaded(store, task)).status is TaskStatus.QUEUED
    assert await store.append(make_event(await claimed(store, task), end), own=True)


async def test_with_lapsed_only_a_dead_lease_is_ended(store: Store) -> None:
    alive, dead = await running(store), await running(store, lease=0.0)
    await wait_until_async(lambda: store.lapsed())
    assert await store.append(make_event(alive, "task.attempt_lost"), lapsed=True) == 0
    assert await store.append(make_event(dead, "task.attempt_lost"), lapsed=True) > 0
    assert await store.lapsed() == []


async def test_seqs_are_dense_under_concurrent_writers(store: Store) -> None:
    tasks = [await running(store) for _ in range(5)]
    events = [make_event(task, "task.progress", n=n) for n in range(1, 41) for task in tasks]
    seqs = await asyncio.gather(*map(store.append, events))
    assert len(set(seqs)) == 200
    read = await log(store)
    assert [event.seq for event in read] == list(range(1, 211))
    assert {event.id for event in read} >= {event.id for event in events}
    for task in tasks:
        assert await loaded(store, task) == folded(task, read)


async def test_a_session_message_is_posted_once(store: Store) -> None:
    event = said("hello")
    seq = await store.post(event)
    assert await store.post(event) == seq
    assert await store.post(said("again")) == seq + 1
    assert [event.data.text for event in await log(store)] == ["hello", "again"]


async def test_messages_that_come_again_after_others_are_posted_once(store: Store) -> None:
    events = [said(str(n)) for n in range(70)]
    seqs = await asyncio.gather(*map(store.post, events))
    other = said("between")
    assert await store.post(other) == seqs[-1] + 1
    assert await asyncio.gather(*map(store.post, events)) == seqs
    assert await log(store) == await store.inbox("chat", 0, 100)
    assert [event.id for event in await log(store)] == [event.id for event in [*events, other]]


async def test_of_the_messages_of_a_session_the_newest_are_known(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        events = [said(str(n)) for n in range(RECENT + 5)]
        seqs = await asyncio.gather(*map(store.post, events))
        assert await store._reads.read("ZCARD", f"{store._keys.of_session('chat')}recent:chat") == RECENT
        assert await store.post(events[5]) == seqs[5]


# -- reading ---------------------------------------------------------------------------------------------
async def test_events_come_in_pages(store: Store) -> None:
    for n in range(7):
        await store.post(said(str(n)))
    page = await store.events("chat", 2, 3)
    assert [event.seq for event in page.events] == [3, 4, 5]
    assert page.gap is None
    assert (await store.events("chat", 7, 3)).events == []
    assert (await store.events("other", 0, 3)).events == []


async def test_what_was_trimmed_shows_as_a_gap(make_store: MakeStore) -> None:
    async with closing(make_store(10)) as store:
        await asyncio.gather(*(store.post(said("x")) for _ in range(300)))
        page = await store.events("chat", 0, 300)
        first = page.events[0].seq
        assert page.gap == (1, first - 1)
        assert len(page.events) >= 10
        assert [event.seq for event in page.events] == list(range(first, 301))
        assert (await store.events("chat", first - 1, 5)).gap is None
        assert await store.last_seq("chat") == 300


async def asked(store: Store, task: Task) -> int:
    assert await store.ask(task, DATA["task.input_required"])
    return await store.last_seq("chat")


async def test_the_inbox_keeps_what_matters_until_it_is_acked(store: Store) -> None:
    done, asking = await running(store), await running(store)
    seqs = [
        await store.append(make_event(done, "session.message", n=1)),
        await asked(store, asking),
        await store.append(make_event(done, "task.completed")),
        await store.post(said("hello")),
    ]
    entries = await store.inbox("chat", 0, 10)
    assert [entry.seq for entry in entries] == seqs
    assert list(entries) == [event for event in await log(store) if event.seq in seqs]
    assert [entry.seq for entry in await store.inbox("chat", seqs[0], 2)] == seqs[1:3]
    assert (await store.unread("chat"), await store.unread("nobody")) == (4, 0)
    assert await store.ack("chat", [seqs[1], seqs[1], 999]) == 1
    assert await store.ack("chat", seqs) == 3
    assert await store.ack("chat", []) == 0
    assert await store.unread("chat") == 0
    assert await store.inbox("chat", 0, 10) == []


async def test_the_inbox_outlives_the_log(make_store: MakeStore) -> None:
    async with closing(make_store(10)) as store:
        task = await running(store)
        mark = await store.append(make_event(task, "session.message", n=1))
        await asyncio.gather(*(store.append(make_event(task, "task.progress", n=n)) for n in range(2, 300)))
        assert [entry.seq for entry in await store.inbox("chat", 0, 10)] == [mark]


async def test_a_snapshot_has_all_tasks_and_their_seq(store: Store) -> None:
    tasks = [await running(store), await born(store)]
    await born(store, "other")
    snapshot = await store.snapshot("chat")
    assert snapshot.seq == 3
    assert {task.id: task for task in snapshot.tasks} == {task.id: task for task in tasks}


async def test_tasks_are_listed_newest_first(store: Store) -> None:
    made = []
    for n in range(6):
        made.append(await born(store, f"chat {n % 2}", agent=f"agent{n % 3}"))
        await wait_until_async(lambda: time.time() > made[-1].created_at + 0.002, every=0.001)
    newest = [task.id for task in reversed(made)]
    assert [task.id for task in await store.tasks()] == newest
    assert [task.id for task in await store.tasks(limit=2)] == newest[:2]
    assert [task.id for task in await store.tasks(session_id="chat 1")] == newest[0::2]
    assert [task.id for task in await store.tasks(agent="agent2", limit=1)] == newest[:1]
    assert await store.tasks(session_id="nobody") == []


async def test_tasks_are_found_by_all_that_is_asked(store: Store) -> None:
    wanted = await running(store, "a", agent="x")
    oldest = await born(store, "a", agent="x")
    for session_id, agent in (("a", "y"), ("b", "x"), ("b", "y")):
        await running(store, session_id, agent=agent)
        await wait_until_async(lambda: time.time() > oldest.created_at + 0.002, every=0.001)
    await claimed(store, oldest)  # the last to start, not the last to be born
    asked: dict[str, Any] = {"session_id": "a", "agent": "x", "status": TaskStatus.RUNNING}
    assert {task.id for task in await store.tasks(**asked)} == {wanted.id, oldest.id}
    assert [task.agent for task in await store.tasks(session_id="b", agent="x", limit=1)] == ["x"]
    assert [t.session_id for t in await store.tasks(status=TaskStatus.RUNNING, limit=1)] == ["b"]
    assert await store.tasks(status=TaskStatus.QUEUED) == []


async def test_hundreds_of_readers_at_once_are_served(store: Store) -> None:
    task = await running(store)
    found = await asyncio.gather(*(store.load(task.id) for _ in range(500)))
    assert all(each == task for each in found)


async def test_a_listener_is_nudged(store: Store) -> None:
    async with store.watch("chat") as hint, store.watch("other") as elsewhere:
        nudge = asyncio.create_task(hint.wait(10.0))
        nothing = asyncio.create_task(elsewhere.wait(10.0))
        await asyncio.sleep(0)
        await store.post(said("hello"))
        await asyncio.wait_for(nudge, 5.0)
        assert not nothing.done()
        nothing.cancel()


async def test_two_listeners_are_nudged_and_one_may_leave(store: Store) -> None:
    async with store.watch("chat") as first:
        async with store.watch("chat") as second:
            waiting = [asyncio.create_task(hint.wait(10.0)) for hint in (first, second)]
            await asyncio.sleep(0)
            await store.post(said("hello"))
            await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
        left = asyncio.create_task(first.wait(10.0))
        await asyncio.sleep(0)
        await store.post(said("again"))
        await asyncio.wait_for(left, 5.0)


async def test_listeners_that_begin_at_the_same_moment_are_all_nudged(store: Store) -> None:
    async def listen(session_id: str, ready: asyncio.Semaphore) -> None:
        async with store.watch(session_id) as hint:
            ready.release()
            await hint.wait(20.0)

    ready, names = asyncio.Semaphore(0), [f"chat-{number}" for number in range(20)]
    listening = [asyncio.create_task(listen(name, ready)) for name in names]
    for _ in names:
        await ready.acquire()
    for name in names:
        await store.post(said("hello", name))
    await asyncio.wait_for(asyncio.gather(*listening), 3.0)


async def test_a_nudge_without_news_arrives_and_writes_nothing(store: Store) -> None:
    async with store.watch("chat") as hint:
        waiting = asyncio.create_task(hint.wait(20.0))
        await asyncio.sleep(0)
        await store.nudge("chat")
        await asyncio.wait_for(waiting, 5.0)
    assert await store.last_seq("chat") == 0


async def test_a_revoked_token_is_known_until_it_would_have_expired(store: Store) -> None:
    await store.revoke_token("a", 60.0)
    await store.revoke_token("b", 0.01)
    await asyncio.sleep(0.05)
    assert await store.revoked(["a", "b", "c"]) == {"a"}
    assert await store.revoked([]) == set()


async def test_without_news_a_listener_waits_in_vain(store: Store) -> None:
    async with store.watch("chat") as hint:
        began = time.monotonic()
        await hint.wait(0.05)
        assert time.monotonic() - began >= 0.04


# -- leases, due times -----------------------------------------------------------------------------------
async def test_a_renewed_lease_lasts_longer(store: Store) -> None:
    task = await running(store, lease=0.0)
    assert (await store.renew("w1", [task.id], LEASE)).held == [task.id]
    assert await store.lapsed() == []
    await store.renew("w1", [task.id], 0.0)
    assert await wait_until_async(lambda: store.lapsed()) == [task.id]


@pytest.mark.parametrize("how", ["claimed", "renewed"])
async def test_a_lease_lasts_as_many_seconds_as_it_says(store: Store, how: str) -> None:
    began = time.monotonic()
    task = await running(store, lease=0.3 if how == "claimed" else LEASE)
    if how == "renewed":
        await store.renew("w1", [task.id], 0.3)
    assert await wait_until_async(lambda: store.lapsed(), timeout=3.0) == [task.id]
    assert time.monotonic() - began >= 0.29


async def test_a_worker_renews_only_what_is_its_own(store: Store) -> None:
    mine, ended, queued = await running(store), await running(store, "b"), await born(store, "c")
    taken = await running(store, "d")
    await store.append(make_event(ended, "task.completed"))
    await store.append(make_event(taken, "task.attempt_lost"))
    await store.claim(taken.id, "w2", LEASE)
    everything = [task.id for task in (mine, ended, queued, taken, make_task())]
    assert (await store.renew("w1", everything, LEASE)).held == [mine.id]
    assert (await store.renew("w1", [], LEASE)).held == []


async def test_a_renewal_tells_who_is_to_be_cancelled(store: Store) -> None:
    tasks = [await running(store, name) for name in "ab"]
    await store.append(make_event(tasks[1], "task.cancel_requested"))
    renewal = await store.renew("w1", [task.id for task in tasks], LEASE)
    assert set(renewal.held) == {task.id for task in tasks}
    assert renewal.cancelled == [tasks[1].id]


async def test_a_lapsed_lease_is_found(store: Store) -> None:
    dead = {(await running(store, name, lease=0.0)).id for name in "abc"}
    await running(store)
    await wait_until_async(lambda: _all_lapsed(store, dead))
    assert set(await store.lapsed(limit=100)) == dead


async def _all_lapsed(store: Store, wanted: set[str]) -> bool:
    return set(await store.lapsed()) == wanted


async def retried(store: Store, delay: float) -> Task:
    task = await running(store)
    data = RetryingData(error=ErrorInfo(type="E"), delay=delay, failures=1)
    assert await store.append(make_event(task, "task.retrying", data))
    return await loaded(store, task)


async def test_what_is_let_in_is_left_to_the_publisher(store: Store) -> None:
    let_in = listening(store)
    task = await born(store)
    assert let_in == [task.id]
    await store.append(make_event(await claimed(store, task), "task.attempt_lost"))
    assert let_in == [task.id] * 2
    assert await store.tend() == 0  # its publisher has some seconds


def listening(store: Store) -> list[str]:
    """What the store asks to have published, from now on."""
    let_in: list[str] = []
    store.on_admitted(let_in.extend)
    return let_in


async def test_a_retry_goes_on_after_its_delay(store: Store) -> None:
    let_in = listening(store)
    began = time.time()
    task = await retried(store, 0.2)
    assert await store.claim(task.id, "w2", LEASE) is None  # a second message of its first attempt
    assert let_in == [task.id]
    await wait_until_async(store.tend)
    assert time.time() - began >= 0.19
    assert let_in == [task.id] * 2
    assert await store.tend() == 0
    assert (await claimed(store, task)).attempt == 2


async def test_a_cancelled_task_does_not_wait_for_its_retry(store: Store) -> None:
    let_in = listening(store)
    task = await running(store)
    await store.append(make_event(task, "task.cancel_requested"))
    data = RetryingData(error=ErrorInfo(type="E"), delay=3600.0, failures=1)
    await store.append(make_event(task, "task.retrying", data))
    assert let_in == [task.id] * 2


# -- prune -----------------------------------------------------------------------------------------------
async def test_prune_forgets_what_ended_and_nothing_else(store: Store) -> None:
    ended, alive, queued = await running(store), await running(store), await born(store, "other")
    await store.append(make_event(ended, "task.completed"))
    assert await store.prune(3600.0) == 0
    assert await store.prune(0.0) == 1
    assert await store.load(ended.id) is None
    assert {task.id for task in await store.tasks()} == {alive.id, queued.id}
    assert len(await log(store)) == 5  # the session lives on


async def test_a_pruned_task_frees_its_idempotency_key(store: Store) -> None:
    first, second = make_task(), make_task()
    await store.create(first, None, "key")
    await store.append(make_event(first, "task.cancelled"))
    await store.prune(0.0)
    assert (await store.create(second, None, "key")).id == second.id


@pytest.mark.parametrize("talks", [False, True], ids=["tasks", "messages"])
async def test_what_nobody_acknowledges_goes_with_the_records_of_its_time(
    store: Store, talks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its session goes on, and however much there is."""
    monkeypatch.setattr("hermes_async.adapters.redis_store.store.PRUNE_BATCH", 2)

    async def news() -> int:
        if talks:
            return await store.post(said("x"))
        return await store.append(make_event(await running(store), "task.completed"))

    old = [await news() for _ in range(3)]
    horizon = (await store.events("chat", old[-1] - 1, 1)).events[0].time
    await wait_until_async(lambda: time.time() > horizon + 0.5)
    new = [await news() for _ in range(3)]
    assert await store.unread("chat") == 6
    await store.prune(3600.0)
    assert await store.unread("chat") == 6
    for _ in range(3):
        await store.prune(time.time() - horizon - 0.25)
    assert [entry.seq for entry in await store.inbox("chat", 0, 10)] == new
    assert await store.last_seq("chat") >= new[-1]


async def test_an_end_goes_with_its_task_although_its_session_was_looked_at_since(store: Store) -> None:
    task = await running(store)
    *_, begun = await log(store)
    await wait_until_async(lambda: time.time() > begun.time + 0.1)
    end = await store.append(make_event(task, "task.completed"))
    *_, ended = await log(store)
    await wait_until_async(lambda: time.time() > ended.time + 0.1)
    new = await store.post(said("x"))
    await store.prune(time.time() - (begun.time + ended.time) / 2)
    assert [entry.seq for entry in await store.inbox("chat", 0, 10)] == [end, new]
    await store.prune(time.time() - ended.time - 0.05)
    assert await store.load(task.id) is None
    assert [entry.seq for entry in await store.inbox("chat", 0, 10)] == [new]


async def test_a_silent_session_is_kept_while_somebody_listens(store: Store) -> None:
    await store.post(said("hello"))
    async with store.watch("chat"):
        await store.prune(0.0)
        assert await store.last_seq("chat") == 1
    await wait_until_async(lambda: _is_forgotten(store))


async def _is_forgotten(store: Store) -> bool:
    await store.prune(0.0)
    return await store.last_seq("chat") == 0


async def test_silent_sessions_that_are_kept_do_not_hide_those_that_can_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.adapters.redis_store.store.PRUNE_BATCH", 1)
    await running(store, "busy")
    *_, begun = await log(store, "busy")
    await wait_until_async(lambda: time.time() > begun.time + 0.1)
    names = (f"silent {number}" for number in itertools.count())
    silent = next(name for name in names if partition(name) == partition("busy"))
    await store.post(said("hello", silent))

    async def silent_is_gone() -> bool:
        await store.prune(0.0)
        return await store.last_seq(silent) == 0

    await wait_until_async(silent_is_gone)  # a few rounds: those of one millisecond have no order
    assert await store.last_seq("busy") > 0


async def test_ping_names_the_store(store: Store) -> None:
    assert (await store.ping()).split()[0] in ("memory", "redis", "valkey")


async def test_after_everything_ended_no_key_is_left(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        for n, end in enumerate(("task.completed", "task.failed", "task.cancelled") * 4):
            parcel = Parcel("elsewhere", "message") if n % 2 else None
            task = make_task(f"chat {n}")
            await store.create(task, parcel, f"key {n}" if n % 3 else None)
            task = await claimed(store, task)
            await store.append(make_event(task, "task.partial", n=1))
            await store.append(make_event(task, "task.retrying"))
            task = await claimed(store, task)
            await store.append(make_event(task, "task.cancel_requested"))
            await store.append(make_event(task, end))
        await store.append(make_event(await born(store), "task.rejected"))
        await store.post(said("hello", "silent"))
        await store.prune(0.0)
        left = await store._reads.read("KEYS", "*")
    assert set(left) <= {"elsewhere", "hermes:metrics"}  # what was counted, for good


async def test_children_are_cancelled_the_youngest_first(store: Store) -> None:
    """Each may let in another that waits, so the order is part of what happens."""
    parent = await running(store)
    ids = [(await born(store, parent_task_id=parent.id, parent_attempt=parent.attempt)).id for _ in range(8)]
    reached = await store.cancel(parent.id, force=False, cascade=True)
    assert list(reached.ended) == ids[::-1]
    assert [event.task_id for event in await log(store) if event.type == "task.cancelled"] == ids[::-1]


# -- the law, by chance ----------------------------------------------------------------------------------
SESSIONS = ("chat", "other")
WORKERS = ("w1", "w2")
TYPES = sorted(type_ for type_ in DATA if not type_.startswith("callback."))
QUESTIONS = ("1-a", "2-b")
LIMITS = st.sampled_from([RunLimits(), RunLimits(requests=3, seconds=60.0), RunLimits(total_tokens=9)])
AMOUNTS = st.sampled_from([Usage(requests=1), Usage(tool_calls=2), Usage(input_tokens=4, cost_usd=0.1)])


def within(parent: Task | None, task: Task, limits: RunLimits) -> Task:
    """A task with limits of its own, beside those above it."""
    options = task.birth.options.model_copy(update={"limits": limits})
    own = (Budget(task_id=task.id, limits=limits),) if limits != RunLimits() else ()
    budgets = (parent.birth.budgets if parent else ()) + own
    birth = task.birth.model_copy(update={"options": options, "budgets": budgets})
    return task.model_copy(update={"birth": birth})


async def accepted(store: Store, task: Task) -> bool:
    try:
        await store.create(task, None, None)
    except TaskRejected:
        return False
    return True


class TwoStores(RuleBasedStateMachine):
    """Whatever happens, a record is the fold of its events, and memory and Redis agree."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        limits = GateLimits(max_running=4)
        self.stores: list[Store] = [
            MemoryStore(limits=limits),
            RedisStore(self.url, namespace=uuid4().hex, limits=limits),
        ]
        self.let_in = [listening(store) for store in self.stores]
        self.tasks: list[Task] = []
        self.tokens: set[str] = set()

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.close())
        self.runner.close()

    def both(self, ask: Any) -> Any:
        """Ask both stores the same; they must give the same answer."""

        async def answers() -> list[Any]:
            return [await ask(store) for store in self.stores]

        first, second = self.runner.run(answers())
        assert timeless(first) == timeless(second)
        return second

    def task(self, number: int) -> Task:
        task = self.tasks[number % len(self.tasks)]
        found: Task = self.both(lambda store: store.load(task.id))
        return found

    @rule(
        session_id=st.sampled_from(SESSIONS),
        key=st.sampled_from(["", "", "k1"]),
        priority=st.sampled_from([5, 5, 9]),
        limit=st.sampled_from([None, 1, 2]),
        address=st.sampled_from([Address(), Address(concurrency_limit=2), Address(lane=Lane.PROCESS)]),
        limits=LIMITS,
    )
    def create(
        self,
        session_id: str,
        key: str,
        priority: int,
        limit: int | None,
        address: Address,
        limits: RunLimits,
    ) -> None:
        options = {"priority": priority, "concurrency_limit": limit, "fallback": "spare"}
        task = make_task(
            session_id,
            id=new_task_id(session_id),
            input={},
            options=options,
            to=address,
            fallback=Address(concurrency_limit=1),
        )
        task = within(None, task, limits)
        written = self.both(lambda store: store.create(task, None, key or None))
        if written.id == task.id:
            self.tasks.append(task)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), limits=LIMITS)
    def have_a_child(self, number: int, limits: RunLimits) -> None:
        parent = self.task(number)
        if parent.status is TaskStatus.RUNNING and not parent.cancel_requested:
            child = make_task(parent.session_id, parent_task_id=parent.id, parent_attempt=parent.attempt)
            child = within(parent, child, limits)
            if self.both(lambda store: accepted(store, child)):
                self.tasks.append(child)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), older=st.sampled_from([0, 0, 0, 1]), n=st.integers(1, 4), amount=AMOUNTS)
    def spend(self, number: int, older: int, n: int, amount: Usage) -> None:
        task = self.task(number)
        seen = task.model_copy(update={"attempt": max(1, task.attempt - older)})
        if not task.attempt:  # nobody is there to spend anything
            return
        self.both(lambda store: store.spend(seen, n, amount, asks=not amount.total_tokens))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), worker=st.sampled_from(WORKERS))
    def claim(self, number: int, worker: str) -> None:
        task = self.task(number)
        self.both(lambda store: store.claim(task.id, worker, LEASE))

    @precondition(lambda self: self.tasks)
    @rule(
        number=st.integers(0, 9),
        type_=st.sampled_from(TYPES),
        older=st.sampled_from([0, 0, 0, 1]),
        n=st.integers(0, 4),
        lapsed=st.sampled_from([False, False, True]),
        own=st.booleans(),
    )
    def append(self, number: int, type_: str, older: int, n: int, lapsed: bool, own: bool = False) -> None:
        task = self.task(number)
        seen = task.model_copy(update={"attempt": task.attempt - older})
        event = make_event(seen, type_, n=n or "")
        self.both(lambda store: store.append(event, lapsed=lapsed, own=own))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), type_=st.sampled_from(["task.progress", "task.retrying"]))
    def work(self, number: int, type_: str) -> None:
        """Goes on where chance alone seldom comes."""
        task = self.task(number)
        if self.both(lambda store: store.claim(task.id, "w1", LEASE)):
            self.append(number, type_, 0, 1, False)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), event_of=st.sampled_from([falling, suspect]))
    def move(self, number: int, event_of: Any) -> None:
        """To another agent, or to another lane."""
        task = self.task(number)
        if task.status is TaskStatus.RUNNING:
            event = event_of(task)
            self.both(lambda store: store.append(event, moved=apply(task, event)))

    @precondition(lambda self: self.tasks)
    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker: str) -> None:
        ids = [task.id for task in self.tasks]

        async def ask(store: Store) -> Any:
            renewal = await store.renew(worker, ids, LEASE)
            return sorted(renewal.held), sorted(renewal.cancelled)

        self.both(ask)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), force=st.booleans(), cascade=st.booleans())
    def cancel(self, number: int, force: bool, cascade: bool) -> None:
        task = self.task(number)

        async def ask(store: Store) -> Any:
            reached = await store.cancel(task.id, force=force, cascade=cascade)
            return sorted(reached.running), sorted(reached.ended)

        self.both(ask)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9))
    def aside(self, number: int) -> None:
        task = self.task(number)
        self.both(lambda store: store.step_aside(task))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9))
    def back(self, number: int) -> None:
        task = self.task(number)
        self.both(lambda store: store.step_back(task))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), id=st.sampled_from(QUESTIONS), older=st.sampled_from([0, 0, 0, 1]))
    def ask(self, number: int, id: str, older: int) -> None:
        task = self.task(number)
        seen = task.model_copy(update={"attempt": task.attempt - older})
        self.both(lambda store: store.ask(seen, Question(question_id=id, question="which?")))

    @precondition(lambda self: self.tasks)
    @rule(
        number=st.integers(0, 9),
        id=st.sampled_from(QUESTIONS),
        by=st.sampled_from(["answer", "answer", "default", "timeout"]),
        own=st.booleans(),
        token=st.sampled_from("ab"),
    )
    def answer(self, number: int, id: str, by: Any, own: bool, token: str) -> None:
        task = self.task(number)
        answer = Answer(question_id=id, answer=token, by=by)
        token += str(len(self.tokens)) if token == "a" else ""
        self.tokens.add(token)
        self.both(lambda store: store.answer(task, answer, token, own=own))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), n=st.integers(0, 3))
    def say(self, number: int, n: int) -> None:
        event = make_event(self.task(number), "task.message", n=f"said-{n}")
        self.both(lambda store: store.say(event))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9), after=st.integers(0, 20))
    def hear(self, number: int, after: int) -> None:
        task = self.task(number)
        self.both(lambda store: store.hear(task, after))

    @rule(lane=st.sampled_from(Lane), slots=st.integers(0, 3))
    def enlist(self, lane: Lane, slots: int) -> None:
        self.both(lambda store: store.enlist(f"w {lane}", lane, slots, LEASE))

    @rule(session_id=st.sampled_from(SESSIONS), seq=st.integers(1, 20))
    def ack(self, session_id: str, seq: int) -> None:
        self.both(lambda store: store.ack(session_id, [seq]))

    @invariant()
    def the_gate_lets_in_the_same_tasks_in_the_same_order(self) -> None:
        assert self.let_in[0] == self.let_in[1]
        first, second = [self.runner.run(store.traffic()) for store in self.stores]
        assert first == second
        assert sum(first.admitted.values()) <= 4

    @invariant()
    def a_record_is_the_fold_of_its_events(self) -> None:
        for store in self.stores:
            self.runner.run(self.check(store))

    async def check(self, store: Store) -> None:
        events = {session_id: await log(store, session_id) for session_id in SESSIONS}
        for session_id, logged in events.items():
            assert [event.seq for event in logged] == list(range(1, len(logged) + 1))
            inbox = await store.inbox(session_id, 0, 1000)
            assert {event.seq for event in inbox} <= {e.seq for e in logged if e.type in INBOX_TYPES}
        for task in self.tasks:
            found = await loaded(store, task)
            sums = {"usage": found.usage, "tree_usage": found.tree_usage}
            assert found == folded(task, events[task.session_id]).model_copy(update=sums)
        await self.check_counts(store, list(chain.from_iterable(events.values())))

    async def check_counts(self, store: Store, logged: Sequence[AnyEvent]) -> None:
        found = await store.metrics()
        assert sum(found.counts.values()) == len(logged)
        for type_, number in Counter(event.type for event in logged).items():
            assert found.total(type_) == number
        first = sum(event.type == "task.started" and event.attempt == 1 for event in logged)
        assert sum(each.count for each in found.waits.values()) == first
        begun = found.open["running"] + found.open["input_required"]
        assert sum(each.count for each in found.runs.values()) == found.total("task.started") - begun


def timeless(value: Any) -> Any:
    """What two stores can agree on: the clocks differ."""
    if isinstance(value, Task):
        times = ("created_at", "began_at", "queued_at", "started_at", "finished_at")
        return value.model_copy(update={name: getattr(value, name) is None for name in times})
    if isinstance(value, list):
        return [each.model_copy(update={"time": 0.0}) for each in value]
    return value


@pytest.mark.timeout(120)
def test_memory_and_redis_agree_and_records_are_folds(redis_url: str) -> None:
    TwoStores.url = redis_url
    run_by_chance(TwoStores, steps=40)
