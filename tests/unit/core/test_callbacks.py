"""Who is called with news of a task, how often, in which order, and what a call that misbehaves can do."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hermes_async.core import callbacks
from hermes_async.core.callbacks import Caller, Failed, Outcome, Succeeded
from hermes_async.core.calling import Functions
from hermes_async.core.parent_context import MOST_MESSAGES
from hermes_async.domain import callback
from hermes_async.domain.callback import TRIES, Call
from hermes_async.domain.errors import InvalidInput, RetryAfter, StoreUnavailable
from hermes_async.domain.events import task_event
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.lifecycle import LONGEST_DELAY
from hermes_async.domain.task import Progress, TaskProgress, TaskResult
from hermes_async.sdk import ParentContext
from tests.support.agents import echo, fail
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
LEASE = 60.0
TOLD = echo.options(callbacks={"on_complete": "told", "on_failure": "sorry"})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(callbacks, "CLEANUP", 0.05)
    monkeypatch.setattr(callbacks, "AGAIN", 0.01)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench(echo, fail)


class Calls:
    """A caller at work, and the log of the session."""

    def __init__(self, bench: Bench, functions: Mapping[str, Any], **options: Any) -> None:
        self.bench = bench
        self.ledger = bench.store.ledger
        self.functions = Functions(functions, self.ledger, bench.hermes.session)
        self.caller = Caller(self.ledger, self.functions, lease=LEASE, **options)

    async def completed(self, text: str = "tea", session: str = "chat", **options: Any) -> str:
        handle = await self.bench.hermes.session(session).dispatch(TOLD.options(**options), text)
        await self.bench.runner.run(handle.id)
        return handle.id

    async def settled(self) -> None:
        await wait_until_async(self._nothing_waits)

    async def _nothing_waits(self) -> bool:
        return not (await self.ledger.backlog()).waiting and not self.caller.under_way()

    async def types(self) -> list[str]:
        news = ("callback.", "session.")
        return [event.type for event in await self.bench.log() if event.type.startswith(news)]

    async def was_told(self, *types: str) -> bool:
        return bool({*types} & {*await self.types()})

    async def said(self) -> list[str]:
        return [event.data.text for event in await self.bench.log() if event.type == "session.message"]

    async def error(self) -> str:
        found = [event.data.error for event in await self.bench.log() if event.type == "callback.failed"]
        assert found[0] is not None
        return f"{found[0].type}: {found[0].message}"


@asynccontextmanager
async def calling(calls: Calls, grace: float = 0.0) -> AsyncIterator[Calls]:
    running = asyncio.create_task(calls.caller.run(grace))
    try:
        yield calls
    finally:
        calls.caller.stop()
        await running


async def test_def_and_async_def_are_given_result_and_parent(bench: Bench) -> None:
    given: list[tuple[TaskResult, dict[str, Any], bool]] = []
    loops = threading.get_ident()

    def on_a_thread(result: TaskResult, parent: dict[str, Any]) -> None:
        parent["session"].send_message(f"a thread: {result.output}", {"n": 1})
        given.append((result, parent, threading.get_ident() == loops))

    async def on_the_loop(result: TaskResult, parent: ParentContext) -> None:
        await parent["session"].send_message("awaited")
        parent["session"].send_message("not awaited")
        given.append((result, parent, threading.get_ident() == loops))

    async with calling(Calls(bench, {"told": on_a_thread, "other": on_the_loop})) as calls:
        task_id = await calls.completed()
        await calls.settled()
        await calls.completed(callbacks={"on_complete": "other"})
        await calls.settled()
    (result, parent, first_on_loop), (_, _, second_on_loop) = given
    assert (first_on_loop, second_on_loop) == (False, True)
    assert (result.task_id, result.status, result.output) == (task_id, "completed", "tea")
    assert parent.pop("session").id == "chat"
    assert parent == {
        "session_id": "chat",
        "parent": None,
        "task_id": task_id,
        "callback_id": f"{task_id}:on_complete",
        "attempt": 1,
    }
    assert await calls.said() == ["a thread: tea", "awaited", "not awaited"]


async def test_progress_comes_as_progress_and_a_failure_as_a_result(bench: Bench) -> None:
    given: list[Any] = []
    gone_on = threading.Event()

    def note(news: Any, _: ParentContext) -> None:
        given.append(news)
        gone_on.set()

    async with calling(Calls(bench, {"going": note, "sorry": note})) as calls:
        told = fail.options(callbacks={"on_progress": "going", "on_failure": "sorry"})
        task = await bench.dispatch(told)
        claimed = await bench.store.claim(task.id, "w1", LEASE)
        assert claimed is not None
        progress = Progress(progress_percent=40, message="half")
        await bench.store.append(task_event(claimed, "task.progress", progress, n=1))
        await wait_until_async(gone_on.is_set)
        await calls.settled()
        await bench.store.append(make_event(claimed, "task.failed"))
        await calls.settled()
    assert given[0] == TaskProgress(task_id=task.id, progress_percent=40.0, message="half", attempt=1)
    assert (given[1].status, given[1].reason) == ("failed", "error")


async def test_what_was_said_in_a_failed_try_is_not_posted(bench: Bench) -> None:
    tries: list[int] = []

    def told(result: TaskResult, parent: ParentContext) -> None:
        tries.append(parent["attempt"])
        parent["session"].send_message(f"try {parent['attempt']}")
        if len(tries) < 3:
            raise ValueError("not yet")

    async with calling(Calls(bench, {"told": told})) as calls:
        await calls.completed()
        await calls.settled()
    assert tries == [1, 2, 3]
    assert await calls.said() == ["try 3"]
    assert await calls.types() == ["callback.failed"] * 2 + ["session.message", "callback.succeeded"]
    assert await calls.error() == "ValueError: not yet"


async def test_one_that_never_succeeds_is_given_up_and_the_session_goes_on(bench: Bench) -> None:
    order: list[str] = []

    def told(result: TaskResult, parent: ParentContext) -> None:
        order.append(str(result.output))
        if result.output == "poison":
            raise RuntimeError("never")

    calls = Calls(bench, {"told": told})
    for text in ("poison", "second", "third"):
        await calls.completed(text)
    async with calling(calls):
        await calls.settled()
    assert order == ["poison"] * TRIES + ["second", "third"]
    assert await calls.types() == ["callback.failed"] * (TRIES - 1) + [
        "callback.dead",
        "callback.succeeded",
        "callback.succeeded",
    ]
    assert (await calls.ledger.backlog()).dead == 1


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_nothing_that_a_function_raises_ends_the_caller(bench: Bench, end: type[BaseException]) -> None:
    def told(result: TaskResult, parent: ParentContext) -> None:
        if parent["attempt"] == 1:
            raise end

    async def later(result: TaskResult, parent: ParentContext) -> None:
        if parent["attempt"] == 1:
            raise end

    async with calling(Calls(bench, {"told": told, "later": later})) as calls:
        await calls.completed()
        await calls.completed(callbacks={"on_complete": "later"})
        await calls.settled()
    assert await calls.types() == ["callback.failed", "callback.succeeded"] * 2
    assert (await calls.error()).startswith(end.__name__)


async def test_a_function_may_ask_for_time(bench: Bench) -> None:
    moments: list[float] = []

    def told(result: TaskResult, parent: ParentContext) -> None:
        moments.append(time.monotonic())
        if len(moments) == 1:
            raise RetryAfter(0.3)

    async with calling(Calls(bench, {"told": told})) as calls:
        await calls.completed()
        await calls.settled()
    assert moments[1] - moments[0] >= 0.3


async def test_no_function_may_ask_for_ever(bench: Bench) -> None:
    def told(result: TaskResult, parent: ParentContext) -> None:
        raise RetryAfter(math.inf)

    async with calling(Calls(bench, {"told": told})) as calls:
        await calls.completed()
        await wait_until_async(lambda: calls.was_told("callback.failed"))
        due = await calls.ledger.due_in(webhooks=False)
    assert due == pytest.approx(LONGEST_DELAY, rel=0.01)


async def test_a_call_that_hangs_is_given_up_in_time(bench: Bench) -> None:
    free = threading.Event()

    def thread(result: TaskResult, parent: ParentContext) -> None:
        if parent["attempt"] == 1:
            free.wait()
            parent["session"].send_message("too late")

    async def coroutine(result: TaskResult, parent: ParentContext) -> None:
        await asyncio.sleep(60 if parent["attempt"] == 1 else 0)

    async def stubborn(result: TaskResult, parent: ParentContext) -> None:
        while parent["attempt"] == 1 and not free.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    functions = {"told": thread, "coroutine": coroutine, "stubborn": stubborn}
    async with calling(Calls(bench, functions, timeout=0.2)) as calls:
        for name in functions:
            await calls.completed(callbacks={"on_complete": name})
        await calls.settled()
        assert (len(calls.functions.strays), len(calls.caller.strays)) == (1, 1)
        free.set()
        await wait_until_async(lambda: not calls.functions.strays and not calls.caller.strays)
    assert await calls.types() == ["callback.failed", "callback.succeeded"] * 3
    assert await calls.error() == "TimeoutError: the call did not end within 0.2 s"
    assert await calls.said() == []


async def test_an_effect_happens_once(bench: Bench) -> None:
    effects: list[str] = []

    def effect(what: str) -> Callable[[], str]:
        def act() -> str:
            effects.append(what)
            return f"receipt of {what}"

        return act

    async def slow_effect() -> str:
        return effect("a bill")()

    got: list[str] = []

    def told(result: TaskResult, parent: ParentContext) -> None:
        got.append(parent.once("mail", effect("a mail")))
        if parent["attempt"] < 3:
            raise ValueError

    async def later(result: TaskResult, parent: ParentContext) -> None:
        got.append(await parent.once("call", effect("a call")))
        got.append(await parent.once("bill", slow_effect))
        got.append(await parent.once("bill", slow_effect))
        if parent["attempt"] < 3:
            raise ValueError

    async with calling(Calls(bench, {"told": told, "later": later})) as calls:
        await calls.completed()
        await calls.completed(callbacks={"on_complete": "later"})
        await calls.settled()
    assert effects == ["a mail", "a call", "a bill"]
    assert got[:3] == ["receipt of a mail"] * 3
    assert got[3:] == ["receipt of a call", "receipt of a bill", "receipt of a bill"] * 3


async def test_what_a_callback_may_not_say_or_keep(bench: Bench) -> None:
    refused: list[str] = []

    def told(result: TaskResult, parent: ParentContext) -> None:
        session = parent["session"]
        for act in (
            lambda: session.send_message(chr(0xD800)),
            lambda: session.send_message("x" * 70_000),
            lambda: [session.send_message("a flood") for _ in range(MOST_MESSAGES + 1)],
            lambda: parent.once("", list),
            lambda: parent.once("key", object),
        ):
            with pytest.raises(InvalidInput) as caught:
                act()
            refused.append(str(caught.value))

    async with calling(Calls(bench, {"told": told})) as calls:
        await calls.completed()
        await calls.settled()
    assert len(refused) == 5
    assert await calls.said() == ["a flood"] * MOST_MESSAGES


async def test_a_callback_dispatches_the_same_task_at_every_try(bench: Bench) -> None:
    ids: list[str] = []

    def told(result: TaskResult, parent: ParentContext) -> None:
        ids.append(parent["session"].dispatch("echo", text="and now this").id)
        ids.append(parent["session"].dispatch("echo", text="and that").id)
        if parent["attempt"] == 1:
            raise ValueError

    async def later(result: TaskResult, parent: ParentContext) -> None:
        handle = await parent["session"].dispatch("echo", text="from the loop")
        ids.append(handle.id)

    async with calling(Calls(bench, {"told": told, "later": later})) as calls:
        await calls.completed()
        await calls.completed(callbacks={"on_complete": "later"})
        await calls.settled()
    assert ids[:2] == ids[2:4]
    assert len(set(ids)) == 3


async def test_a_name_that_nobody_knows_here(bench: Bench) -> None:
    async with calling(Calls(bench, {"tols": print})) as calls:
        await calls.completed()
        await calls.settled()
    assert await calls.error() == "UnknownCallback: no callback is named 'told' here; did you mean 'tols'?"
    assert (await calls.types())[-1] == "callback.dead"


async def test_what_has_ended_every_process_is_not_called_again(bench: Bench) -> None:
    called: list[Any] = []
    calls = Calls(bench, {"told": lambda result, parent: called.append(result)})
    await calls.completed()
    for _ in range(TRIES):  # each time its caller is killed
        await calls.ledger.claim(LEASE)
        bench.clock.ahead += LEASE + 1
    async with calling(calls):
        await calls.settled()
    assert not called
    rows = await calls.ledger.callbacks(dead=True)
    assert rows[0].log[-1].error.type == "CallerLost"


async def test_what_may_end_processes_takes_nobody_with_it(bench: Bench) -> None:
    begun, free, order = asyncio.Event(), asyncio.Event(), list[str]()

    async def told(result: TaskResult, parent: ParentContext) -> None:
        order.append(f"{result.output} begins")
        begun.set()
        await (free.wait() if result.output == "slow" else asyncio.sleep(0.05))
        order.append(f"{result.output} ends")

    calls = Calls(bench, {"told": told})
    await calls.completed("suspect")
    for _ in range(callbacks.SUSPECT):
        await calls.ledger.claim(LEASE)
        bench.clock.ahead += LEASE + 1
    bench.clock.ahead -= 1.5  # it can be claimed in half a second
    async with calling(calls):
        await calls.completed("slow", "a")
        await begun.wait()
        await wait_until_async(lambda: len(calls.caller.under_way()) == 2)
        slow = [each for each in calls.caller.under_way() if not each.is_alone]
        assert [each for each in calls.caller.under_way() if each.takes_longer_than(0)] == slow
        await calls.completed("later", "b")
        free.set()
        await calls.settled()
    assert order == [f"{who} {what}" for who in ("slow", "suspect", "later") for what in ("begins", "ends")]


async def test_what_is_lost_is_stopped_and_not_settled(bench: Bench) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def told(result: TaskResult, parent: ParentContext) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    async with calling(Calls(bench, {"told": told})) as calls:
        await calls.completed()
        await begun.wait()
        bench.clock.ahead += LEASE + 1
        other = await calls.ledger.claim(LEASE)
        calls.caller.lose(calls.caller.under_way())
        await wait_until_async(stopped.is_set)
    assert other is not None
    assert await calls.types() == []
    assert await calls.ledger.succeed(other)


async def test_who_stops_lets_calls_end_or_gives_them_back(bench: Bench) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def short(result: TaskResult, parent: ParentContext) -> None:
        begun.set()
        await free.wait()

    calls = Calls(bench, {"told": short})
    async with calling(calls, grace=5):
        await calls.completed()
        await begun.wait()
        calls.caller.stop()
        await calls.completed()
        free.set()
    assert await calls.types() == ["callback.succeeded"]
    begun.clear()
    free.clear()
    again = Calls(bench, {"told": short})
    async with calling(again, grace=0.01):
        await begun.wait()
    call = await again.ledger.claim(LEASE)  # at once, and no try was counted
    assert call is not None
    assert call.callback.failures == 0


class Posts:
    """A sender of webhooks that does not come back."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.free = asyncio.Event()

    async def send(self, call: Call, result: TaskResult) -> Outcome:
        self.sent.append(call.id)
        await self.free.wait()
        return Succeeded()

    def failed(self, call: Call, error: ErrorInfo) -> Outcome:
        return Failed(error, 3600.0)  # however often it has failed


async def test_a_webhook_that_is_given_up_has_the_tries_of_a_webhook(bench: Bench) -> None:
    calls = Calls(bench, {"told": lambda result, parent: None}, webhooks=Posts(), timeout=0.05)
    await calls.completed(webhook={"url": "https://example.com"})
    for _ in range(TRIES):  # each time its caller is killed
        await calls.ledger.claim(LEASE, webhooks=True)
        bench.clock.ahead += LEASE + 1
    async with calling(calls):
        await wait_until_async(lambda: calls.was_told("callback.failed", "callback.dead"))
    assert await calls.types() == ["callback.succeeded", "callback.failed"]


async def test_what_may_end_processes_takes_no_webhook_with_it(bench: Bench) -> None:
    posts, meanwhile = Posts(), list[str]()
    posts.free.set()

    async def told(result: TaskResult, parent: ParentContext) -> None:
        await asyncio.sleep(0.05)
        meanwhile.extend(posts.sent)

    calls = Calls(bench, {"told": told}, webhooks=posts)
    await calls.completed(webhook={"url": "https://example.com"})
    for _ in range(callbacks.SUSPECT):
        await calls.ledger.claim(LEASE)
        bench.clock.ahead += LEASE + 1
    async with calling(calls):
        await calls.settled()
    assert not meanwhile
    assert len(posts.sent) == 1


async def test_neither_webhooks_nor_functions_wait_for_the_others_places(bench: Bench) -> None:
    posts, free, at_once = Posts(), asyncio.Event(), [0, 0]

    async def told(result: TaskResult, parent: ParentContext) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await free.wait()
        at_once[0] -= 1

    calls = Calls(bench, {"told": told}, webhooks=posts, places=2)
    webhook = {"webhook": {"url": "https://example.com"}}
    for number in range(4):
        await calls.completed(session=f"s{number}", **webhook)
    async with calling(calls):
        await wait_until_async(lambda: (len(posts.sent), at_once[0]) == (2, 2))
        free.set()
        await wait_until_async(lambda: at_once[0] == 0 and at_once[1] == 2)
        assert len(posts.sent) == 2
        posts.free.set()
        await calls.settled()
    assert len(posts.sent) == 4
    assert at_once[1] == 2


async def test_a_store_that_is_away_or_has_something_unreadable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(bench, {"told": lambda result, parent: None})
    away = {"claim": 3, "succeed": 2, "due_in": 1}
    for name in away:
        real = getattr(calls.ledger, name)

        async def weak(*args: Any, _name: str = name, _real: Any = real, **how: Any) -> Any:
            if away[_name]:
                away[_name] -= 1
                raise (
                    ValueError("unreadable")
                    if (_name, away[_name]) == ("claim", 0)
                    else StoreUnavailable("away")
                )
            return await _real(*args, **how)

        monkeypatch.setattr(calls.ledger, name, weak)
    async with calling(calls):
        await calls.completed()
        await calls.settled()
        await wait_until_async(lambda: not any(away.values()))
    assert await calls.types() == ["callback.succeeded"]


async def test_who_is_idle_hardly_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    calls = Calls(bench, {})
    real = calls.ledger.claim

    async def counted(lease: float, **how: Any) -> Any:
        nonlocal looks
        looks += 1
        return await real(lease, **how)

    monkeypatch.setattr(calls.ledger, "claim", counted)
    async with calling(calls):
        await asyncio.sleep(1.0)
    assert looks <= 2
