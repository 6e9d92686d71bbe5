"""The client: every event once and in order, whatever breaks in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import (
    Closed,
    InvalidInput,
    RelayUnavailable,
    Unauthorized,
    UnknownTask,
    UserError,
)
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.relay.client import RelayClient
from hermes_async.relay.line import Limits
from tests.support.servers import free_port, wait_until_async
from tests.unit.relay.conftest import (
    MakeStore,
    Station,
    background_tasks,
    finish,
    hermes_over,
    new_task,
    only_memory,
    progress,
    say,
    token,
)

pytestmark = pytest.mark.anyio


async def first(events: AsyncIterator[AnyEvent | Gap], count: int) -> list[AnyEvent]:
    taken: list[AnyEvent] = []
    async for event in events:
        assert not isinstance(event, Gap)
        taken.append(event)
        if len(taken) == count:
            break
    await events.aclose()  # type: ignore[attr-defined]
    return taken


async def test_it_resumes_at_every_place_of_a_log(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "s", 50)
    log = list((await hermes.store.events("s", 0, 100)).events)
    async with RelayClient(relay.url, token("s")) as client:
        resumed = [first(client.follow(session="s", after=after), 50 - after) for after in range(50)]
        assert await asyncio.gather(*resumed) == [log[after:] for after in range(50)]


async def test_a_task_is_followed_to_its_end(hermes: Hermes, relay: Station) -> None:
    task = await new_task(hermes, "s")
    await progress(hermes, task, range(1, 200))
    await finish(hermes, task)
    async with RelayClient(relay.url, token("s")) as client:
        types = [event.type async for event in client.follow(task=task.id)]  # type: ignore[union-attr]
        assert types == ["task.queued", "task.started", *["task.progress"] * 199, "task.cancelled"]
        assert [event async for event in client.follow(task=task.id, after=202)] == []


async def test_nothing_is_lost_when_the_relay_restarts(hermes: Hermes) -> None:
    task = await new_task(hermes, "s")
    async with Station(hermes) as relay, RelayClient(relay.url, token("s")) as client:

        async def write() -> None:
            for number in range(1, 1001):
                await progress(hermes, task, range(number, number + 1))
                await asyncio.sleep(0.001 if number % 5 == 0 else 0)
                if number in (300, 700):
                    await relay.stop()
                    await relay.start()
            await finish(hermes, task)

        writing = asyncio.create_task(write())
        seen = [event async for event in client.follow(task=task.id, after=2)]
        await writing
    told = [event.data.message for event in seen[:-1]]  # type: ignore[union-attr]
    assert told == [str(number) for number in range(1, 1001)]
    assert not background_tasks()


@only_memory
async def test_who_stops_reading_is_disconnected_and_resumes(hermes: Hermes) -> None:
    await say(hermes, "s", 300)
    seen: list[int] = []
    async with (
        Station(hermes, Limits(ack_timeout=0.1)) as relay,
        RelayClient(relay.url, token("s")) as client,
    ):
        async for event in client.follow(session="s"):
            assert not isinstance(event, Gap)
            seen.append(event.seq)
            if event.seq in (10, 100, 200):
                await asyncio.sleep(0.3)
                feeds = [name for name in background_tasks() if "feed" in name or "Topic" in name]
                assert not feeds  # nothing is kept for who does not read
            if event.seq == 300:
                break
    assert seen == list(range(1, 301))


async def test_a_trimmed_place_gives_a_gap(make_store: MakeStore) -> None:
    async with hermes_over(make_store(10)) as hermes, Station(hermes) as relay:
        task = await new_task(hermes, "s")
        await finish(hermes, task)
        await say(hermes, "s", 400)
        kept = (await hermes.store.events("s", 0, 500)).events
        async with RelayClient(relay.url, token("s")) as client:
            told = []
            async for item in client.follow(session="s", after=1):
                told.append(item)
                if isinstance(item, Gap):
                    assert (item.first, item.last, item.as_of) == (2, kept[0].seq - 1, 403)
                    assert item.snapshot[task.id]["status"] == "cancelled"
                elif item.seq == 403:
                    break
            assert told[1:] == list(kept)
            assert [type(item) async for item in client.follow(task=task.id)] == [Gap]


async def test_a_large_snapshot_comes_in_pieces_and_is_put_together(make_store: MakeStore) -> None:
    async with hermes_over(make_store(1)) as hermes, Station(hermes) as relay:
        tasks = [await new_task(hermes, "s") for _ in range(350)]
        async with RelayClient(relay.url, token("s")) as client:
            gap = await anext(client.follow(session="s"))
    assert isinstance(gap, Gap)
    assert gap.snapshot.keys() == {task.id for task in tasks}


@only_memory
async def test_a_bad_token_is_not_tried_again(relay: Station) -> None:
    async with RelayClient(relay.url, "garbage") as client:
        began = time.monotonic()
        with pytest.raises(Unauthorized):
            await anext(client.follow(session="s"))
        assert time.monotonic() - began < 1


@only_memory
async def test_a_token_that_expires_ends_it_unless_there_is_a_fresh_one(
    hermes: Hermes, relay: Station
) -> None:
    async with RelayClient(relay.url, token("s", ttl=0.2)) as client:
        with pytest.raises(Unauthorized, match="expired"):
            await anext(client.follow(session="s"))
    async with RelayClient(relay.url, lambda: token("s", ttl=0.2)) as client:
        following = asyncio.create_task(first(client.follow(session="s"), 1))
        await asyncio.sleep(1.3)
        await say(hermes, "s", 1)
        assert (await asyncio.wait_for(following, 5))[0].seq == 1


@only_memory
async def test_what_is_absent_or_foreign_is_unknown(relay: Station) -> None:
    async with RelayClient(relay.url, token("s")) as client:
        for wanted in ({"task": "t01-absent"}, {"session": "theirs"}):
            with pytest.raises(UnknownTask):
                await anext(client.follow(**wanted))
        with pytest.raises(InvalidInput):
            await anext(client.follow(session="s", after=-1))


async def test_no_relay_is_told_with_its_url_and_the_cure() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with RelayClient(url, token("s"), timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(RelayUnavailable, match=f"{url}.*hermes-async up"):
            await anext(client.follow(session="s"))
        assert 0.2 < time.monotonic() - began < 2


async def test_something_else_on_the_port_is_no_relay() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, RelayClient(f"http://127.0.0.1:{port}", "x", timeout=0.5) as client:
        with pytest.raises(RelayUnavailable):
            await anext(client.follow(session="s"))


@only_memory
async def test_it_waits_for_a_relay_that_starts_later(hermes: Hermes) -> None:
    await say(hermes, "s", 1)
    relay = Station(hermes)
    relay.port = free_port()
    async with RelayClient(relay.url, token("s")) as client:
        following = asyncio.create_task(first(client.follow(session="s"), 1))
        await asyncio.sleep(0.3)
        await relay.start()
        assert len(await asyncio.wait_for(following, 5)) == 1
    await relay.stop()


@only_memory
async def test_it_gives_up_after_as_long_as_it_was_told(hermes: Hermes) -> None:
    await say(hermes, "s", 1)
    async with Station(hermes) as relay, RelayClient(relay.url, token("s"), give_up_after=0.3) as client:
        following = client.follow(session="s")
        await anext(following)
        await relay.stop()
        with pytest.raises(RelayUnavailable):
            await asyncio.wait_for(anext(following), 5)


@only_memory
async def test_a_client_that_is_closed_ends_what_was_followed(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "s", 3)
    async with RelayClient(relay.url, token("s")) as client:
        async for _ in client.follow(session="s"):
            break
    await asyncio.sleep(0.1)
    assert not [name for name in background_tasks() if "feed" in name]


LEFT = r"^this RelayClient is closed: open another, with `async with RelayClient\(\.\.\.\)`$"


@only_memory
async def test_who_follows_a_client_that_is_left_is_done_or_told(hermes: Hermes, relay: Station) -> None:
    async def note(events: AsyncIterator[AnyEvent | Gap]) -> None:
        async for event in events:
            heard.append(event.seq)

    task = await new_task(hermes, "s")
    heard: list[int] = []
    async with RelayClient(relay.url, token("s")) as client:
        session = asyncio.create_task(note(client.follow(session="s")))
        ending = asyncio.create_task(note(client.follow(task=task.id)))
        log = (await hermes.store.events("s", 0, 10)).events
        await wait_until_async(lambda: len(heard) == 2 * len(log))
    await asyncio.wait_for(session, 5)
    with pytest.raises(Closed, match=LEFT):
        await asyncio.wait_for(ending, 5)


@only_memory
async def test_one_that_is_not_open_or_was_left_refuses(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "s", 1)
    client = RelayClient(relay.url, token("s"))

    async def refused(error: type[UserError], sentence: str) -> None:
        for asked in (client.message("s", "x"), anext(client.follow(session="s"))):
            with pytest.raises(error, match=sentence):
                await asked

    await refused(UserError, "^this RelayClient is not open yet: open it with `async with RelayClient")
    async with client:
        assert await client.message("s", "x") == 2
        with pytest.raises(UserError, match="this RelayClient is open already"):
            await client.__aenter__()
        with pytest.raises(UserError, match="this RelayClient belongs to another event loop"):
            await asyncio.to_thread(asyncio.run, client.message("s", "x"))
    await refused(Closed, LEFT)
    async with client:
        assert await client.message("s", "x") == 3


async def test_one_without_asyncio_is_told_so() -> None:
    def as_trio_does() -> None:
        RelayClient("http://127.0.0.1:1", "x").__aenter__().send(None)

    with pytest.raises(UserError, match="a RelayClient needs asyncio, of which no event loop runs here"):
        await asyncio.to_thread(as_trio_does)
