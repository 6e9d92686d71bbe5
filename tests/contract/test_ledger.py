"""The ledger: every callback is told once and in order, whoever calls, and whatever becomes of him."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.ports import Store
from hermes_async.domain.callback import CALLER_LOST, KEPT_TRIES, TRIES, Call, CallbackKind
from hermes_async.domain.events import AnyEvent, MessageData
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import Task
from tests.contract.conftest import closing
from tests.support.servers import wait_until_async
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio
LEASE = 60.0
OOPS = ErrorInfo(type="ValueError", message="no ❄", traceback="a\nb\u2028c")
NAMES = {"on_complete": "done", "on_failure": "failed", "on_progress": "going"}
BOTH = {"callbacks": {"on_complete": "done", "on_failure": "failed"}}
URL = {"webhook": {"url": "https://example.com/secret/path"}}


class Told:
    """A store, and what its ledger is asked."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ledger = store.ledger

    async def running(self, session_id: str = "chat", *, ordered: bool = True, **options: Any) -> Task:
        task = make_task(session_id, options=options or BOTH)
        birth = task.birth.model_copy(update={"ordered": ordered})
        await self.store.create(task.model_copy(update={"birth": birth}), None, None)
        found = await self.store.claim(task.id, "w1", LEASE)
        assert found is not None
        return found

    async def append(self, task: Task, type_: str, **how: Any) -> int:
        seq = await self.store.append(make_event(task, type_, **how))
        assert seq
        return seq

    async def ended(self, session_id: str = "chat", how: str = "completed", **options: Any) -> Task:
        task = await self.running(session_id, **options)
        await self.append(task, f"task.{how}")
        return task

    async def claimed(self, lease: float = LEASE, **how: Any) -> Call:
        call = await self.ledger.claim(lease, **how)
        assert call is not None
        return call

    async def nobody(self) -> bool:
        return (await self.ledger.claim(LEASE), await self.ledger.claim(LEASE, webhooks=True)) == (None, None)

    async def log(self, session_id: str = "chat") -> list[AnyEvent]:
        return list((await self.store.events(session_id, 0, 1000)).events)

    async def counts(self) -> tuple[int, int]:
        backlog = await self.ledger.backlog()
        return backlog.waiting, backlog.dead


@pytest.fixture
async def told(store: Store) -> Told:
    return Told(store)


# -- what is filed ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("end", "kinds"),
    [
        ("completed", ["on_complete", "webhook"]),
        ("failed", ["on_failure", "webhook"]),
        ("cancelled", ["on_failure", "webhook"]),
    ],
)
async def test_an_end_files_what_it_makes_due(told: Told, end: str, kinds: list[str]) -> None:
    task = await told.ended(how=end, callbacks=NAMES, **URL)
    rows = await told.ledger.callbacks()
    seq = (await told.log())[-1].seq
    assert sorted(row.id for row in rows) == [f"{task.id}:{kind}" for kind in kinds]
    assert {(row.seq, row.session_id, row.task_id, row.failures, row.dead) for row in rows} == {
        (seq, "chat", task.id, 0, False)
    }
    function = await told.claimed()
    assert (function.callback.name, function.task) == (NAMES[kinds[0]], await told.store.load(task.id))
    webhook = await told.claimed(webhooks=True)
    assert (webhook.callback.name, webhook.callback.kind) == (URL["webhook"]["url"], CallbackKind.WEBHOOK)
    assert await told.nobody()


async def test_who_wants_nothing_is_told_nothing(told: Told) -> None:
    await told.ended(callbacks={"on_failure": "failed"})
    await told.ended(priority=5)
    await told.ended(how="failed", callbacks={"on_complete": "done"})
    assert (await told.counts(), await told.nobody()) == ((0, 0), True)
    assert await told.ledger.due_in() is None


async def test_a_cancelled_tree_is_told_of_each(told: Told) -> None:
    top = await told.running()
    below = make_task(parent_task_id=top.id, parent_attempt=top.attempt, options=BOTH)
    await told.store.create(below, None, None)
    await told.store.cancel(top.id, force=False, cascade=True)
    assert [row.task_id for row in await told.ledger.callbacks()] == [below.id]
    await told.append(top, "task.cancelled")
    assert [(await told.ledger.callbacks())[n].task_id for n in (0, 1)] == [below.id, top.id]


async def test_what_is_written_twice_is_filed_once(told: Told) -> None:
    task = await told.ended()
    await told.append(task, "task.completed")
    assert await told.counts() == (1, 0)


# -- lines and claims ------------------------------------------------------------------------------------
async def test_an_ordered_session_is_told_one_at_a_time_in_order(told: Told) -> None:
    tasks = [await told.ended() for _ in range(3)]
    await told.ended("other")
    calls = {call.callback.session_id: call for call in (await told.claimed(), await told.claimed())}
    assert set(calls) == {"chat", "other"}
    assert await told.nobody()
    await told.ledger.succeed(calls["other"])
    order = [calls["chat"]]
    for _ in range(2):
        assert await told.nobody()
        await told.ledger.succeed(order[-1])
        order.append(await told.claimed())
    assert [call.task.id for call in order] == [task.id for task in tasks]


async def test_without_order_only_the_calls_of_one_task_wait_for_each_other(told: Told) -> None:
    first = await told.running(ordered=False, callbacks=NAMES)
    await told.append(first, "task.progress", n=1)
    progress = await told.claimed()
    second = await told.ended(ordered=False)
    await told.append(first, "task.completed")
    assert progress.callback.kind is CallbackKind.ON_PROGRESS
    assert (await told.claimed()).task.id == second.id
    assert await told.nobody()
    await told.ledger.succeed(progress)
    assert (await told.claimed()).id == f"{first.id}:on_complete"


async def test_a_claim_that_ran_out_is_given_to_the_next_and_refused_to_the_first(told: Told) -> None:
    await told.ended()
    first = await told.claimed(0.0)
    second = await told.claimed()
    assert second.id == first.id
    assert second.fence > first.fence
    assert [each.error for each in second.callback.log] == [CALLER_LOST]
    assert second.callback.failures == 1
    length = len(await told.log())
    assert not await told.ledger.succeed(first, [MessageData(text="late")])
    assert not await told.ledger.fail(first, OOPS, 0.0)
    assert not await told.ledger.put_off(first, 0.0)
    assert not await told.ledger.give_up(first, OOPS)
    assert not await told.ledger.remember(first, "key", 1)
    assert await told.ledger.renew([first], 0.0) == []
    assert len(await told.log()) == length
    assert await told.nobody()
    assert await told.ledger.succeed(second)


async def test_a_renewed_claim_lasts_longer(told: Told) -> None:
    await told.ended("a")
    await told.ended("b")
    lost, kept = await told.claimed(LEASE), await told.claimed(0.0)
    assert sorted(await told.ledger.renew([kept, lost], LEASE)) == sorted([kept.id, lost.id])
    assert await told.nobody()
    assert await told.ledger.renew([lost], 0.0) == [lost.id]
    assert (await told.claimed()).id == lost.id


async def test_a_line_that_goes_on_is_behind_those_that_have_waited(told: Told) -> None:
    for session_id in ("a", "a", "b", "b"):
        await told.ended(session_id)
        await asyncio.sleep(0.002)  # a row that is filed later is ready later
    order = []
    while call := await told.ledger.claim(LEASE):
        order.append(call.callback.session_id)
        await asyncio.sleep(0.002)
        await told.ledger.succeed(call)
    assert order == ["a", "b", "a", "b"]


# -- how a call ends -------------------------------------------------------------------------------------
async def test_success_is_committed_with_what_was_said_and_once(told: Told) -> None:
    task = await told.ended()
    call = await told.claimed()
    said = [MessageData(text="one"), MessageData(text="two", data={"n": [1]})]
    for _ in range(2):  # the second time the reply to the first was lost
        assert await told.ledger.succeed(call, said)
    *before, one, two, succeeded = await told.log()
    assert [event.type for event in (one, two, succeeded)] == ["session.message"] * 2 + ["callback.succeeded"]
    assert "session.message" not in [event.type for event in before]
    assert [event.id for event in (one, two)] == [f"{call.id}:1", f"{call.id}:2"]
    assert [event.data for event in (one, two)] == said
    for event in (one, two, succeeded):
        where = (event.task_id, event.agent, event.attempt, event.trace_id)
        assert where == (task.id, task.agent, 1, task.birth.trace_id)
    assert (succeeded.data.name, succeeded.data.error) == ("done", None)
    inbox = await told.store.inbox("chat", 0, 100)
    assert [event.type for event in inbox] == ["task.completed", "session.message", "session.message"]
    assert await told.counts() == (0, 0)


async def test_a_failed_try_is_noted_and_comes_again(told: Told) -> None:
    await told.ended()
    first = await told.claimed()
    for _ in range(2):
        assert await told.ledger.fail(first, OOPS, 3600.0)
    assert await told.nobody()
    [row] = await told.ledger.callbacks()
    assert (row.failures, [each.error for each in row.log]) == (1, [OOPS])
    assert 3500.0 < (await told.ledger.due_in() or 0.0) <= 3600.0
    assert row.due_at is not None
    failed = [event for event in await told.log() if event.type == "callback.failed"]
    assert [(event.id, event.data.error) for event in failed] == [(f"{first.id}:{first.fence}:failed", OOPS)]
    assert not await told.ledger.succeed(first)


async def test_the_errors_of_the_latest_tries_are_kept(told: Told) -> None:
    await told.ended()
    for n in range(KEPT_TRIES + 2):
        await told.ledger.fail(await told.claimed(), ErrorInfo(type=str(n), message="x\ny\u2028z"), 0.0)
    row = (await told.claimed()).callback
    assert row.failures == KEPT_TRIES + 2
    assert [each.error.type for each in row.log] == [str(n) for n in range(2, KEPT_TRIES + 2)]
    assert len({event.id for event in await told.log()}) == len(await told.log())


async def test_what_is_put_off_has_not_failed(told: Told) -> None:
    await told.ended()
    call = await told.claimed()
    length = len(await told.log())
    assert await told.ledger.put_off(call, 0.0)
    assert await told.ledger.put_off(call, 3600.0)  # the reply was lost
    again = await told.claimed()
    assert (again.callback.failures, again.callback.log, again.callback.due_at) == (0, (), None)
    assert again.fence > call.fence
    assert len(await told.log()) == length


async def test_who_is_given_up_holds_up_nobody_and_can_be_delivered_again(told: Told) -> None:
    await told.ended()
    following = await told.ended()
    dead = await told.claimed()
    for _ in range(2):
        assert await told.ledger.give_up(dead, OOPS)
    assert (await told.log())[-1].type == "callback.dead"
    assert (await told.log())[-1].data.error == OOPS
    assert await told.counts() == (1, 1)
    [row] = await told.ledger.callbacks(dead=True)
    assert (row.id, row.dead, row.failures, row.log[0].error) == (dead.id, True, 1, OOPS)
    under_way = await told.claimed()
    assert under_way.task.id == following.id
    assert await told.ledger.redeliver(dead.id)
    assert not await told.ledger.redeliver(dead.id)
    assert await told.nobody()  # one at a time
    await told.ledger.put_off(under_way, 3600.0)
    again = await told.claimed()
    assert (again.id, again.callback.failures, again.callback.dead) == (dead.id, 0, False)
    assert not await told.ledger.succeed(dead)
    assert await told.ledger.succeed(again)
    assert await told.nobody()  # who was put off still is
    assert await told.counts() == (1, 0)


async def test_a_line_goes_on_with_who_came_back_during_a_call(told: Told) -> None:
    for _ in range(3):
        await told.ended()
    dead = await told.claimed()
    await told.ledger.give_up(dead, OOPS)
    under_way = await told.claimed()
    await told.ledger.redeliver(dead.id)
    await told.ledger.succeed(under_way)
    assert (await told.claimed()).id == dead.id


async def test_only_what_is_dead_can_be_discarded_or_delivered_again(told: Told) -> None:
    await told.ended()
    call = await told.claimed()
    for callback_id in (call.id, "t00-unknown:webhook", "nonsense", ""):
        assert not await told.ledger.discard(callback_id)
        assert not await told.ledger.redeliver(callback_id)
    await told.ledger.give_up(call, OOPS)
    assert await told.ledger.discard(call.id)
    assert not await told.ledger.discard(call.id)
    assert await told.counts() == (0, 0)


async def test_what_effects_came_to_is_remembered_until_the_row_is_over(told: Told) -> None:
    await told.ended()
    first = await told.claimed()
    assert await told.ledger.remembered(first) == {}
    assert await told.ledger.remember(first, "mail", {"id": [1, "ü"]})
    assert await told.ledger.remember(first, "paid", None)
    await told.ledger.fail(first, OOPS, 0.0)
    again = await told.claimed()
    assert await told.ledger.remembered(again) == {"mail": {"id": [1, "ü"]}, "paid": None}
    await told.ledger.succeed(again)
    assert await told.ledger.remembered(again) == {}


# -- progress --------------------------------------------------------------------------------------------
async def test_progress_that_waits_is_filed_once_and_tells_the_newest(told: Told) -> None:
    task = await told.running(callbacks=NAMES)
    first = await told.append(task, "task.progress", n=1)
    for n in (2, 3):
        await told.append(task, "task.progress", n=n)
    call = await told.claimed()
    assert (call.id, call.callback.seq) == (f"{task.id}:on_progress:{first}", first)
    assert await told.nobody()
    second = await told.append(task, "task.progress", n=4)
    await told.append(task, "task.progress", n=5)
    assert await told.counts() == (2, 0)
    assert await told.ledger.succeed(call)
    assert (await told.claimed()).id == f"{task.id}:on_progress:{second}"


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_no_progress_waits_when_its_task_has_ended(told: Told, how: str) -> None:
    task = await told.running(callbacks=NAMES)
    await told.append(task, "task.progress", n=1)
    await told.append(task, f"task.{how}")
    kind = CallbackKind.ON_COMPLETE if how == "completed" else CallbackKind.ON_FAILURE
    assert [row.kind for row in await told.ledger.callbacks()] == [kind]
    assert (await told.claimed()).callback.kind is kind


async def test_progress_that_is_withdrawn_holds_up_nobody_behind_it(told: Told) -> None:
    going = {"on_progress": "going"}
    task = await told.running(callbacks=going)
    await told.append(task, "task.progress", n=1)
    await told.ledger.fail(await told.claimed(), OOPS, 3600.0)
    behind = await told.ended()
    assert await told.nobody()
    await told.append(task, "task.completed")
    call = await told.claimed()
    assert call.task.id == behind.id
    await told.ledger.succeed(call)
    alone = await told.running(callbacks=going)
    await told.append(alone, "task.progress", n=1)
    await told.append(alone, "task.completed")
    assert (await told.ledger.due_in(), await told.nobody()) == (None, True)


@pytest.mark.parametrize("then", ["succeed", "fail", "put_off", "give_up", "lost"])
async def test_the_end_comes_after_the_progress_that_is_being_told(told: Told, then: str) -> None:
    task = await told.running(callbacks=NAMES)
    await told.append(task, "task.progress", n=1)
    call = await told.claimed(0.0)
    await told.ledger.renew([call], LEASE)
    await told.append(task, "task.progress", n=2)
    await told.append(task, "task.completed")
    assert await told.nobody()
    assert await told.counts() == (2, 0)
    if then == "lost":
        await told.ledger.renew([call], 0.0)
    else:
        ends: dict[str, Any] = {"succeed": (), "fail": (OOPS, 60.0), "put_off": (60.0,), "give_up": (OOPS,)}
        assert await getattr(told.ledger, then)(call, *ends[then])
    assert (await told.claimed()).id == f"{task.id}:on_complete"
    assert await told.counts() == (1, 0)


async def test_progress_that_has_failed_takes_the_place_of_newer_that_waits(told: Told) -> None:
    task = await told.running(callbacks=NAMES)
    await told.append(task, "task.progress", n=1)
    call = await told.claimed()
    await told.append(task, "task.progress", n=2)
    await told.ledger.fail(call, OOPS, 0.0)
    assert [row.id for row in await told.ledger.callbacks()] == [call.id]
    await told.append(task, "task.progress", n=3)
    assert await told.counts() == (1, 0)
    await told.append(task, "task.completed")
    assert [row.kind for row in await told.ledger.callbacks()] == [CallbackKind.ON_COMPLETE]


async def test_progress_that_is_given_up_is_not_kept(told: Told) -> None:
    task = await told.running(callbacks=NAMES)
    await told.append(task, "task.progress", n=1)
    await told.ledger.give_up(await told.claimed(), OOPS)
    assert await told.counts() == (0, 0)
    await told.append(task, "task.progress", n=2)
    assert await told.counts() == (1, 0)


# -- looking and listening -------------------------------------------------------------------------------
async def test_rows_are_found_by_session_and_state(told: Told) -> None:
    for session_id in ("a", "b", "a"):
        await told.ended(session_id)
    call = await told.claimed()
    await told.ledger.give_up(call, OOPS)
    ledger = told.ledger
    assert len(await ledger.callbacks()) == 3
    assert [row.id for row in await ledger.callbacks(dead=True)] == [call.id]
    assert call.id not in [row.id for row in await ledger.callbacks(dead=False)]
    assert {row.session_id for row in await ledger.callbacks(session_id="b")} == {"b"}
    assert len(await ledger.callbacks(limit=2)) == 2


async def test_callers_count_until_they_leave_or_are_silent(told: Told) -> None:
    await told.ledger.enlist("c1", LEASE)
    await told.ledger.enlist("c2", 0.05)
    assert (await told.ledger.backlog()).oldest is None

    async def callers() -> int:
        return (await told.ledger.backlog()).callers

    await wait_until_async(lambda: _is(callers, 1))
    await told.ledger.enlist("c1", 0.0)
    assert await callers() == 0


async def _is(ask: Any, wanted: int) -> bool:
    return bool(await ask() == wanted)


@pytest.mark.parametrize("news", ["filed", "the next", "failed", "put off", "dead", "redelivered"])
async def test_a_listener_is_nudged_when_a_line_is_ready(told: Told, news: str) -> None:
    for _ in range(2):
        await told.ended("before")
    call = await told.claimed()
    if news == "redelivered":
        await told.ledger.give_up(call, OOPS)
        await told.ledger.succeed(await told.claimed())
    does: dict[str, Any] = {
        "filed": lambda: told.ended(),
        "the next": lambda: told.ledger.succeed(call),
        "failed": lambda: told.ledger.fail(call, OOPS, 1.0),
        "put off": lambda: told.ledger.put_off(call, 1.0),
        "dead": lambda: told.ledger.give_up(call, OOPS),
        "redelivered": lambda: told.ledger.redeliver(call.id),
    }
    async with told.ledger.watch() as hint:
        nudge = asyncio.create_task(hint.wait(20.0))
        await asyncio.sleep(0.05)
        assert not nudge.done()
        await does[news]()
        await asyncio.wait_for(nudge, 10.0)


# -- endpoints -------------------------------------------------------------------------------------------
async def test_an_endpoint_that_fails_often_is_closed_for_a_while(told: Told) -> None:
    ledger = told.ledger
    for _ in range(2):
        assert await ledger.endpoint_failed("https://a", 3, 0.2) == 0.0
    assert await ledger.endpoint_closed_for("https://a", 3, LEASE) == 0.0
    assert 0.1 < await ledger.endpoint_failed("https://a", 3, 0.2) <= 0.2
    assert 0.0 < await ledger.endpoint_closed_for("https://a", 3, LEASE) <= 0.2
    assert await ledger.endpoint_closed_for("https://b", 3, LEASE) == 0.0

    async def is_open() -> bool:
        return await ledger.endpoint_closed_for("https://a", 3, LEASE) == 0.0

    await wait_until_async(is_open)
    assert await ledger.endpoint_failed("https://a", 3, LEASE) > 0.0  # one more is enough
    await ledger.endpoint_ok("https://a")
    assert await ledger.endpoint_closed_for("https://a", 3, LEASE) == 0.0
    assert await ledger.endpoint_failed("https://a", 3, LEASE) == 0.0


async def test_one_caller_at_a_time_tries_an_endpoint_that_was_closed(told: Told) -> None:
    ledger = told.ledger

    async def asked(count: int) -> list[bool]:
        """Whether each of so many callers may try."""
        waits = [ledger.endpoint_closed_for("https://a", 1, 0.2) for _ in range(count)]
        return sorted(wait == 0.0 for wait in await asyncio.gather(*waits))

    async def somebody_tries() -> bool:
        return (await asked(5)) == [False, False, False, False, True]

    await ledger.endpoint_failed("https://a", 1, 0.1)
    assert await asked(5) == [False] * 5
    await wait_until_async(somebody_tries)
    assert await asked(5) == [False] * 5
    await wait_until_async(somebody_tries)  # the first may have died
    await ledger.endpoint_ok("https://a")
    assert await asked(5) == [True] * 5


# -- nothing is left, nothing is forgotten too early -----------------------------------------------------
async def test_a_task_is_not_forgotten_before_its_callbacks(told: Told) -> None:
    waiting, _, done = [await told.ended() for _ in range(3)]
    plain = await told.ended(priority=5)
    half = await told.ended(**URL, **BOTH)
    assert await told.store.prune(0.0) == 1
    assert await told.store.load(plain.id) is None
    await told.ledger.succeed(await told.claimed(webhooks=True))
    assert await told.store.prune(0.0) == 0
    call = await told.claimed()
    assert call.task.id == waiting.id
    await told.ledger.give_up(call, OOPS)
    for _ in range(3):
        await told.ledger.succeed(await told.claimed())
    assert await told.store.prune(0.0) == 3
    assert await told.store.load(half.id) is None
    assert await told.store.load(done.id) is None
    assert await told.store.load(waiting.id) is not None
    assert await told.ledger.discard(call.id)
    assert await told.store.prune(0.0) == 1


async def test_what_has_been_dead_for_long_is_forgotten(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, waiting = await told.ended(), await told.ended()
    await told.ledger.give_up(await told.claimed(), OOPS)
    monkeypatch.setattr("hermes_async.adapters.memory.ledger.DEAD_RETENTION", 0.0)
    monkeypatch.setattr("hermes_async.adapters.redis_store.store.DEAD_RETENTION", 0.0)
    assert await told.store.prune(3600.0) == 0
    assert await told.counts() == (1, 1)
    assert await told.store.prune(0.0) == 1
    assert await told.counts() == (1, 0)
    assert await told.store.load(dead.id) is None
    assert await told.store.load(waiting.id) is not None


async def test_no_key_of_the_ledger_is_left(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        told = Told(store)
        for ordered in (True, False):
            for how in ("completed", "failed", "cancelled"):
                task = await told.running(f"chat {how}", ordered=ordered, callbacks=NAMES, **URL)
                await told.append(task, "task.progress", n=1)
                await told.ledger.remember(await told.claimed(0.0), "key", 1)
                await told.append(task, "task.progress", n=2)
                await told.append(task, f"task.{how}")
        await told.append(await told.running(callbacks=NAMES), "task.cancelled")
        await told.ledger.enlist("c1", LEASE)
        for webhooks in (False, True):
            for end in ("give_up", "succeed"):
                call = await told.claimed(webhooks=webhooks)
                await (store.ledger.succeed(call) if end == "succeed" else store.ledger.give_up(call, OOPS))
        for row in await store.ledger.callbacks(dead=True):
            await store.ledger.discard(row.id)
        while call := await store.ledger.claim(LEASE) or await store.ledger.claim(LEASE, webhooks=True):
            await store.ledger.succeed(call)
        assert await store.ledger.callbacks() == []
        await store.ledger.enlist("c1", 0.0)
        await store.prune(0.0)
        assert await store._reads.read("KEYS", "*") == ["hermes:metrics"]


async def test_what_is_known_of_endpoints_expires(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        await store.ledger.endpoint_failed("https://a", 1, LEASE)
        keys = sorted(await store._reads.read("KEYS", "*"))
        assert [key.rpartition("ledger:")[2] for key in keys] == ["closed:https://a", "failures:https://a"]
        for key in keys:
            assert await store._reads.read("PTTL", key) > 0


# -- rows that cannot be read ----------------------------------------------------------------------------
@pytest.mark.parametrize("damage", ["birth", "status", "log", "seq"])
async def test_a_row_that_cannot_be_read_holds_up_its_line_for_its_tries_only(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("hermes_async.domain.callback.FIRST_DELAY", 0.0)
    async with closing(RedisStore(redis_url)) as store:
        told = Told(store)
        bad, good = await told.ended(), await told.ended()
        task, row = f"{store._keys.of_task(bad.id)}task:{bad.id}", f"{bad.id}:on_complete"
        if damage in ("log", "seq"):
            task = f"{store._keys.of_task(bad.id)}callback:{row}"
        await store._reads.read("HSET", task, damage, "of the future")
        call = await told.claimed()
        assert call.task.id == good.id
        tries = (await told.log())[-TRIES:]
        assert tries[-1].data.error.message.startswith("this row, or the record of its task, cannot be read")
        assert [event.type for event in tries] == [
            *["callback.failed"] * (TRIES - 1),
            "callback.dead",
        ]
        [dead] = await store.ledger.callbacks(dead=True)
        assert (dead.id, dead.session_id, dead.dead) == (row, "chat", True)
        await told.ledger.succeed(call)
        assert await told.nobody()
        assert await store.ledger.redeliver(row)
        assert await told.nobody() is (damage != "log")  # it has had its tries again; an old log is forgotten
        if damage == "log":
            return
        assert await store.ledger.discard(row)
        assert await store.ledger.callbacks() == []


@pytest.mark.parametrize("damage", ["many", "1.5", "9" * 5_000])
async def test_a_row_whose_tries_are_not_counted_in_numbers_is_counted_anew(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("hermes_async.domain.callback.FIRST_DELAY", 0.0)
    async with closing(RedisStore(redis_url)) as store:
        told = Told(store)
        bad = await told.ended()
        row = f"{bad.id}:on_complete"
        await store._reads.read("HSET", f"{store._keys.of_task(bad.id)}callback:{row}", "failures", damage)
        assert [each.id for each in await store.ledger.callbacks()] == [row]
        call = await told.claimed()
        assert (call.id, call.callback.failures) == (row, 1)
        assert (await told.log())[-1].type == "callback.failed"
        assert await told.ledger.succeed(call)
        assert await told.nobody()


@pytest.mark.parametrize("lost", ["record", "rows"])
async def test_a_ledger_in_pieces_goes_on(redis_url: str, lost: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        told = Told(store)
        gone = await told.ended(ordered=False)
        prefix = store._keys.of_task(gone.id)
        await store._reads.read("DEL", f"{prefix}{'task' if lost == 'record' else 'line'}:{gone.id}")
        there = await told.ended()
        call = await told.claimed()
        assert call.task.id == there.id
        await told.ledger.succeed(call)
        assert await told.nobody()
