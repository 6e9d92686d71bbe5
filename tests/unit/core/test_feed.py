"""One reader per session, however many listen; none when nobody does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from hermes_async.core import feed
from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import subagent
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.gap import Gap
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def number(ctx: TaskContext, n: int) -> int:
    return n


def readers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("hermes-feed")]


async def test_two_hundred_handles_share_one_reader_and_leave_none(make_bench: MakeBench) -> None:
    bench = make_bench(number)
    handles = [await bench.session.dispatch(number, n) for n in range(200)]
    waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
    await wait_until_async(lambda: bench.awaited == 200)
    assert readers() == ["hermes-feed chat"]
    looks = bench.store.calls.count("events")
    for handle in reversed(handles):
        await bench.runner.run(handle.id)
    assert await asyncio.gather(*waiting) == list(range(200))
    assert bench.store.calls.count("events") - looks < 1000
    assert readers() == []
    assert bench.hermes.feed._readers == {}


async def test_who_stops_listening_leaves_no_reader(make_bench: MakeBench) -> None:
    bench = make_bench(number)
    handle = await bench.session.dispatch(number, 1)
    for listening in (handle.result(), anext(bench.session.events(after=9)), anext(bench.session.inbox())):
        task = asyncio.ensure_future(listening)
        await wait_until_async(lambda: readers() and bench.hermes.feed._readers)
        task.cancel()
        await asyncio.wait({task})
        await wait_until_async(lambda: not readers())


async def test_a_store_that_swallows_a_cancellation_does_not_keep_a_reader(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.05)
    read, began = bench.store.head, asyncio.Event()

    async def head(session_id: str) -> tuple[int, str]:
        began.set()
        with suppress(asyncio.CancelledError):  # as redis-py does at times
            await asyncio.sleep(0.1)
        return await read(session_id)

    monkeypatch.setattr(bench.store, "head", head)
    listening = asyncio.ensure_future(anext(bench.session.events(after=9)))
    await began.wait()
    listening.cancel()
    await asyncio.wait({listening}, timeout=5)
    await wait_until_async(lambda: not readers())


async def test_a_session_is_followed_from_any_seq(bench: Bench) -> None:
    for text in "abc":
        await bench.session.send_message(text)
    read: list[tuple[int, str]] = []

    async def listen(after: int) -> None:
        async for event in bench.session.events(after):
            read.append((event.seq, event.data.text))

    listening = asyncio.create_task(listen(1))
    await wait_until_async(lambda: read == [(2, "b"), (3, "c")])
    await bench.session.send_message("d")
    await wait_until_async(lambda: read[2:] == [(4, "d")])
    listening.cancel()


async def test_a_burst_arrives_whole_and_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE", 7)
    read: list[int] = []

    async def listen() -> None:
        async for event in bench.session.events():
            read.append(event.seq)

    listening = asyncio.create_task(listen())
    await asyncio.gather(*(bench.session.send_message(str(n)) for n in range(100)))
    await wait_until_async(lambda: len(read) == 100)
    assert read == list(range(1, 101))
    listening.cancel()


async def test_a_store_that_is_away_for_a_while_is_waited_for(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.01)
    bench = make_bench(number)
    handle = await bench.session.dispatch(number, 5)
    waiting = asyncio.ensure_future(handle.result())
    await wait_until_async(lambda: bench.awaited)
    bench.store.away = 3
    await wait_until_async(lambda: bench.store.away == 0)
    await bench.runner.run(handle.id)
    assert await asyncio.wait_for(waiting, 5) == 5


async def test_streams_and_inbox_wait_for_a_store_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "ASK_AGAIN", 0.01)
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.01)
    heard: list[int] = []
    delivered: list[int] = []

    async def listen() -> None:
        async for event in bench.session.events():
            heard.append(event.seq)

    async def drain() -> None:
        async for delivery in bench.session.inbox():
            delivered.append(delivery.event.seq)

    listening = [asyncio.create_task(listen()), asyncio.create_task(drain())]
    await wait_until_async(lambda: bench.followers == 2)
    for number in range(1, 6):
        bench.store.away = number
        await bench.session.send_message("x")
        await wait_until_async(lambda number=number: heard == delivered == list(range(1, number + 1)))
    bench.store.away = 1_000_000
    await bench.session.send_message("never heard")
    await bench.hermes.feed.close()
    await asyncio.wait_for(asyncio.gather(*listening), 5)


async def test_what_was_trimmed_is_told_before_the_rest(make_bench: MakeBench) -> None:
    bench = make_bench(number, max_length=10)
    task = await bench.dispatch(number, 1)
    await bench.runner.run(task.id)
    for _ in range(30):
        await bench.session.send_message("x")
    kept = await bench.log()
    events = bench.session.events(after=1)
    first, *rest = [await anext(events) for _ in range(11)]
    assert isinstance(first, Gap)
    assert (first.first, first.last, first.seq, first.as_of) == (2, kept[0].seq - 1, kept[0].seq - 1, 33)
    assert (first.type, first.snapshot[task.id]["status"]) == ("gap", "completed")
    assert rest == kept


async def test_without_nudges_news_are_found_all_the_same(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.01)
    bench = make_bench(number)
    handle = await bench.session.dispatch(number, 5)
    monkeypatch.setattr(bench.store._session("chat").nudges, "tell", lambda: None)
    waiting = asyncio.ensure_future(handle.result())
    await wait_until_async(lambda: bench.awaited)
    await bench.runner.run(handle.id)
    assert await asyncio.wait_for(waiting, 5) == 5


async def test_who_cannot_begin_to_listen_is_told(bench: Bench) -> None:
    await bench.session.send_message("a")

    async def away(session_id: str) -> int:
        raise StoreUnavailable("Redis is away")

    bench.store.head = away  # type: ignore[method-assign]
    for listening in (anext(bench.session.events()), anext(bench.session.inbox())):
        with pytest.raises(StoreUnavailable, match=r"nobody listens to session chat: Redis is away"):
            await asyncio.wait_for(_future(listening), 5)
    assert readers() == []


async def _future(awaitable: Any) -> Any:
    return await awaitable


async def test_a_reader_that_breaks_tells_its_followers(bench: Bench) -> None:
    listening = asyncio.ensure_future(_future(anext(bench.session.events())))
    await wait_until_async(lambda: readers() and bench.hermes.feed._readers["chat"]._first.is_set())

    async def broken(session_id: str, after: int, limit: int) -> Any:
        raise KeyError("task.unheard_of")

    bench.store.events = broken  # type: ignore[method-assign]
    await bench.session.send_message("a")
    with pytest.raises(StoreUnavailable, match="unheard_of"):
        await asyncio.wait_for(listening, 5)


async def test_a_lingering_reader_serves_the_next_and_goes_with_the_feed(bench: Bench) -> None:
    lingering = feed.Feed(bench.store, linger=60.0)
    async with lingering.follow("chat") as first:
        pass
    async with lingering.follow("chat") as second:
        assert second is first
    assert readers() == ["hermes-feed chat"]
    await lingering.close()
    assert readers() == []


async def test_a_lingering_reader_goes_when_its_time_is_over(bench: Bench) -> None:
    lingering = feed.Feed(bench.store, linger=0.01)
    async with lingering.follow("chat"):
        pass
    await wait_until_async(lambda: not readers())
    async with lingering.follow("chat"):
        assert readers() == ["hermes-feed chat"]
    await lingering.close()
