"""Handlers: in order, one at a time, and gone when nobody wants them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from hermes_async.core import listeners
from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import subagent
from hermes_async.domain.errors import InvalidInput, StoreUnavailable
from hermes_async.domain.gap import Gap
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


def left() -> list[str]:
    return [
        t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith(("hermes-list", "hermes-feed"))
    ]


async def say(bench: Bench, *texts: str) -> None:
    for text in texts:
        await bench.session.send_message(text)


async def test_a_handler_hears_what_comes_after_it_was_set_and_what_it_asked_for(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(echo)
    heard: dict[str, list[str]] = {"task.completed": [], "task.*": [], "*": []}
    await say(bench, "before")
    for types, list_ in heard.items():
        await bench.session.on(types, lambda event, list_=list_: list_.append(event.type))
    task = await bench.dispatch(echo, "x")
    await bench.runner.run(task.id)
    await say(bench, "after")
    life = ["task.queued", "task.started", "task.completed"]
    await wait_until_async(lambda: heard["*"] == [*life, "session.message"])
    assert heard["task.*"] == life
    assert heard["task.completed"] == ["task.completed"]


async def test_handlers_are_called_one_at_a_time_in_order_also_over_many_sessions_objects(
    bench: Bench,
) -> None:
    calls: list[tuple[str, str]] = []
    busy = 0

    async def slow(event: Any) -> None:
        nonlocal busy
        busy += 1
        await asyncio.sleep(0)
        assert busy == 1
        busy -= 1
        calls.append(("slow", event.data.text))

    await bench.session.on("session.message", slow)
    await bench.session.on("*", lambda event: calls.append(("quick", event.data.text)))
    texts = [str(n) for n in range(20)]
    await say(bench, *texts)
    await wait_until_async(lambda: len(calls) == 40)
    assert calls == [(who, text) for text in texts for who in ("slow", "quick")]


async def test_what_a_handler_raises_is_logged_and_stops_nobody(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def broken(event: Any) -> None:
        raise ValueError(event.data.text)

    await bench.session.on("*", broken)
    await bench.session.on("*", lambda event: heard.append(event.data.text))
    with caplog.at_level(logging.ERROR):
        await say(bench, "a", "b")
        await wait_until_async(lambda: heard == ["a", "b"])
    assert [record.message for record in caplog.records] == [
        f"a handler of * failed at #{seq} session.message" for seq in (1, 2)
    ]


async def test_who_unsubscribes_hears_no_more_and_leaves_nothing(bench: Bench) -> None:
    heard: list[str] = []
    off = await bench.session.on("*", lambda event: heard.append(event.data.text))
    other = await bench.session.on("*", lambda event: None)
    await say(bench, "a")
    await wait_until_async(lambda: heard == ["a"])
    off()
    await say(bench, "b")
    await wait_until_async(lambda: bench.followers)
    other()
    other()
    await wait_until_async(lambda: not left())
    assert heard == ["a"]
    await bench.session.on("*", lambda event: heard.append(event.data.text))
    await say(bench, "c")
    await wait_until_async(lambda: heard == ["a", "c"])


async def test_a_handler_may_unsubscribe_itself_and_is_let_to_its_end(bench: Bench) -> None:
    ended: list[str] = []

    async def once(event: Any) -> None:
        off()
        await asyncio.sleep(0.01)
        ended.append(event.data.text)

    off = await bench.session.on("*", once)
    await say(bench, "a", "b")
    await wait_until_async(lambda: not left())
    assert ended == ["a"]


async def test_who_is_taken_away_by_another_handler_does_not_hear_that_very_event(bench: Bench) -> None:
    heard: list[str] = []
    await bench.session.on("*", lambda event: off())
    off = await bench.session.on("*", lambda event: heard.append("taken away"))
    await bench.session.on("*", lambda event: heard.append("last"))
    await say(bench, "a")
    await wait_until_async(lambda: heard)
    assert heard == ["last"]


async def test_closing_stops_them_in_the_middle_of_a_call(bench: Bench) -> None:
    called = asyncio.Event()

    async def hang(event: Any) -> None:
        called.set()
        await asyncio.Event().wait()

    await bench.session.on("*", hang)
    await say(bench, "a")
    await asyncio.wait_for(called.wait(), 5)
    await bench.hermes.close()
    assert left() == []


async def test_what_is_gone_is_told_to_who_asks_for_it(make_bench: MakeBench) -> None:
    bench = make_bench(max_length=5)
    heard: list[Any] = []
    waits = asyncio.Event()

    async def slow(event: Any) -> None:
        heard.append(event)
        await waits.wait()

    await bench.session.on("*", slow)
    await say(bench, "first")
    await wait_until_async(lambda: heard)
    await say(bench, *map(str, range(20)))
    waits.set()
    await wait_until_async(lambda: heard[-1].seq == 21)
    assert isinstance(heard[1], Gap)
    assert [item.seq for item in heard] == [1, 16, *range(17, 22)]


async def test_they_wait_for_a_store_that_cannot_be_listened_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "ASK_AGAIN", 0.01)
    heard: list[str] = []
    await say(bench, "before")
    looks = 0
    real = bench.store.last_seq

    async def weak(session_id: str) -> int:
        nonlocal looks
        looks += 1
        if looks in (2, 3):  # the first is that of `on`
            raise StoreUnavailable("away")
        return await real(session_id)

    monkeypatch.setattr(bench.store, "last_seq", weak)
    await bench.session.on("*", lambda event: heard.append(event.data.text))
    await say(bench, "after")
    await wait_until_async(lambda: heard == ["after"])


@pytest.mark.parametrize(
    ("types", "told"), [("task.complete", "did you mean 'task.completed'"), ("", "no event is called ''")]
)
async def test_a_type_that_does_not_exist_is_refused(bench: Bench, types: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        await bench.session.on(types, print)
    assert left() == []


async def test_a_handler_that_awaits_something_cancelled_has_failed_and_hears_the_next(bench: Bench) -> None:
    heard: list[str] = []

    async def handler(event: Any) -> None:
        heard.append(event.data.text)
        cancelled = asyncio.ensure_future(asyncio.sleep(60))
        cancelled.cancel()
        await cancelled

    await bench.session.on("session.message", handler)
    await say(bench, "one", "two")
    await wait_until_async(lambda: heard == ["one", "two"])


async def test_a_close_does_not_wait_for_ever_for_a_handler_that_swallows_a_cancellation(
    bench: Bench,
) -> None:
    called = asyncio.Event()

    async def handler(event: Any) -> None:
        called.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    await bench.session.on("session.message", handler)
    await say(bench, "one", "two")
    await called.wait()
    await asyncio.wait_for(bench.hermes.listeners.close(), 5)
    assert not left()
