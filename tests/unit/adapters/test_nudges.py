"""Nudges bring small events along; who hears of a large one, or has missed one, looks at the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from secrets import token_hex

import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core import feed
from hermes_async.core.feed import Feed, Reader
from hermes_async.core.page import Page
from hermes_async.domain.events import MessageData
from tests.support.servers import wait_until_async
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio

TASK = make_task()
#: More than a nudge brings.
LARGE = "x" * 5_000


class Counted(RedisStore):
    """Counts how often a log is read."""

    reads = 0

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        self.reads += 1
        return await super().events(session_id, after, limit)


@pytest.fixture
async def store(
    redis_url: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Counted]:
    monkeypatch.setattr(feed, "LOOK_EVERY", 3600.0)
    store = Counted(redis_url)
    yield store
    await store.close()


async def post(store: RedisStore, text: str) -> int:
    return await store.post(make_event(TASK, "session.message", MessageData(text=text), n=token_hex(4)))


def texts(pages: list[Page]) -> list[str]:
    return [event.data.text for page in pages for event in page.events]


async def told(reader: Reader, count: int, pages: list[Page]) -> None:
    await wait_until_async(lambda: len(texts(pages)) >= count, 5)
    assert reader.seq == pages[-1].events[-1].seq


async def test_what_nudges_bring_is_what_the_log_says(store: Counted) -> None:
    said = ["plain", 'a\nb "c" \\n \x00', "ünïcödé 🙂", ""]
    async with store.watch("chat") as hint:
        for text in said:
            await post(store, text)
        brought: list[object] = []
        while len(brought) < len(said):
            brought += await asyncio.wait_for(hint.wait(3600), 5)
    assert brought == (await store.events("chat", 0, 10)).events


async def test_a_reader_reads_the_log_only_for_what_no_nudge_has_brought(store: Counted) -> None:
    await post(store, "before")
    pages: list[Page] = []
    async with Feed(store).follow("chat") as reader:
        reader.listeners.append(pages.append)
        for number, text in enumerate("abc", 1):
            await post(store, text)
            await told(reader, number, pages)
        assert store.reads == 0
        await post(store, LARGE)
        await told(reader, 4, pages)
        assert store.reads == 1
        await post(store, "after")
        await told(reader, 5, pages)
    assert texts(pages) == ["a", "b", "c", LARGE, "after"]


@pytest.mark.parametrize(
    "lie",
    [
        lambda seq: (
            f"{seq + 5}\nid\nsession.message\n0\n\n\n0\n\n" + '{"text": "a hole before it", "data": null}'
        ),
        lambda seq: f"{seq}\nid\nsession.message\n0\n\n\n0\n\n" + '{"text": "known", "data": null}',
        lambda seq: str(seq),
        lambda seq: "",
        lambda seq: f"{seq + 1}\nid\nof.another.version\n0\n\n\n0\n\n" + "{}",
        lambda seq: f"{seq + 1}\nid\nsession.message\n0\n\n\n0\n\n" + '{"text": [',
        lambda seq: "not\na\nnudge",
    ],
)
async def test_a_nudge_that_brings_something_else_than_what_comes_next_is_only_a_nudge(
    store: Counted, lie: Callable[[int], str]
) -> None:
    pages: list[Page] = []
    async with Feed(store).follow("chat") as reader:
        reader.listeners.append(pages.append)
        seq = await post(store, "a")
        await told(reader, 1, pages)
        channels = store._nudges._channels
        await store._reads.read("PUBLISH", store._channel("chat"), lie(seq))
        await wait_until_async(lambda: store.reads == 1, 5)
        assert store._nudges._channels is channels  # which the other sessions listen to as well
        await post(store, "b")
        await told(reader, 2, pages)
        assert reader.seq == seq + 1
    assert texts(pages) == ["a", "b"]


async def test_who_does_not_come_for_many_events_reads_the_log(
    store: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.adapters.redis_store.nudges.KEPT", 3)
    async with store.watch("chat") as slow, store.watch("chat") as quick:
        for number in range(5):
            await post(store, str(number))
            assert await asyncio.wait_for(quick.wait(3600), 5)
        assert await asyncio.wait_for(slow.wait(3600), 5) == ()
        await post(store, "5")
        [event] = await asyncio.wait_for(slow.wait(3600), 5)
        assert event.data.text == "5"


async def test_who_was_cut_off_looks(store: Counted) -> None:
    pages: list[Page] = []
    async with Feed(store).follow("chat") as reader:
        reader.listeners.append(pages.append)
        await store._reads.read("CLIENT", "KILL", "TYPE", "pubsub")
        await post(store, "nobody hears this")
        await told(reader, 1, pages)
        assert store.reads == 1
