"""A stream that is cut at every event, on every transport: what was received equals the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.relay.client import RelayClient
from tests.support.proxy import Mode, Proxy
from tests.support.servers import wait_until_async
from tests.unit.relay.conftest import (
    MakeStore,
    Station,
    background_tasks,
    finish,
    hermes_over,
    new_task,
    progress,
    say,
    token,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("make_store", ["redis"], indirect=True)]

#: An event as JSON values, or the first and last `seq` of a gap.
Item = dict[str, Any] | tuple[int, int]
Items = AsyncGenerator[Item]


class InProcess:
    """The Python API; every connection is another process's."""

    def __init__(self, relay: Station, url: str) -> None:
        self._url = url

    async def read(self, after: int, task: str | None = None) -> Items:
        async with hermes_over(RedisStore(self._url)) as hermes:
            events = (await hermes.handle(task)).events(after) if task else hermes.session("s").events(after)
            async for item in events:
                yield plain(item)


class Client:
    """`RelayClient`."""

    def __init__(self, relay: Station, url: str) -> None:
        self._relay = relay

    async def read(self, after: int, task: str | None = None) -> Items:
        async with RelayClient(self._relay.url, token("s")) as client:
            where = {"task": task} if task else {"session": "s"}
            async for item in client.follow(**where, after=after):
                yield plain(item)


class RawSocket:
    """Socket.IO without any client of ours."""

    def __init__(self, relay: Station, url: str) -> None:
        self._relay = relay

    async def read(self, after: int, task: str | None = None) -> Items:
        async with self._relay.socket(token("s")) as socket:
            where = {"task": task} if task else {"session": "s"}
            assert (await socket.ask("subscribe", {**where, "after": after}))["ok"]
            for number in range(1_000):
                await wait_until_async(lambda number=number: len(socket.batches) > number, every=0.001)
                batch = socket.batches[number]
                if batch["gap"]:
                    yield tuple(batch["gap"])
                for event in batch["events"]:
                    yield event
                if batch["end"]:
                    return


Transport = InProcess | Client | RawSocket


def plain(item: AnyEvent | Gap) -> Item:
    return (item.first, item.last) if isinstance(item, Gap) else item.model_dump(mode="json")


@pytest.fixture(params=[InProcess, Client, RawSocket], ids=["in process", "client", "socket"])
def transport(request: pytest.FixtureRequest, relay: Station, redis_url: str) -> Transport:
    return cast("Transport", request.param(relay, redis_url))


async def taken(items: Items, count: int) -> list[Item]:
    """So many items; then the connection is cut."""
    found: list[Item] = []
    async with aclosing(items), asyncio.timeout(10):
        while len(found) < count:
            found.append(await anext(items))
    return found


async def written(hermes: Hermes) -> tuple[Sequence[Item], str]:
    """A log with a task that ended in the middle of other news, and that task."""
    await say(hermes, "s", 5)
    task = await new_task(hermes, "s")
    for number in range(1, 11):
        await progress(hermes, task, range(number, number + 1))
        await say(hermes, "s", 1)
    await finish(hermes, task)
    await say(hermes, "s", 5)
    return [plain(event) for event in (await hermes.store.events("s", 0, 1_000)).events], task.id


async def test_a_session_cut_at_every_event(hermes: Hermes, relay: Station, transport: Transport) -> None:
    log, _ = await written(hermes)
    for index in range(len(log) + 1):
        before = await taken(transport.read(0), index)
        if index % 5 == 0:
            await relay.stop()
            await relay.start()
        after = await taken(transport.read(index), len(log) - index)
        assert [*before, *after] == log


async def test_a_task_cut_at_every_event_and_asked_after_its_end(
    hermes: Hermes, transport: Transport
) -> None:
    log, task = await written(hermes)
    ours = [event for event in log if event["task_id"] == task]
    assert ours[-1]["type"] in TERMINAL_TYPES
    for after in range(len(log) + 1):
        async with aclosing(transport.read(after, task)) as items, asyncio.timeout(10):
            assert [item async for item in items] == [event for event in ours if event["seq"] > after]


async def test_a_log_that_was_trimmed_begins_with_what_is_gone(
    make_store: MakeStore, request: pytest.FixtureRequest, redis_url: str
) -> None:
    async with hermes_over(make_store(10)) as hermes, Station(hermes) as relay:
        await say(hermes, "s", 300)
        kept = [plain(event) for event in (await hermes.store.events("s", 0, 1_000)).events]
        first = 301 - len(kept)
        assert first > 100
        for kind in (InProcess, Client, RawSocket):
            for after in (0, 1, first - 3, first - 2):
                gap, *rest = await taken(kind(relay, redis_url).read(after), 1 + len(kept))
                assert (gap, rest) == ((after + 1, first - 1), kept), kind
            assert await taken(kind(relay, redis_url).read(first - 1), len(kept)) == kept


async def test_one_stream_whose_connection_is_reset_at_every_event(hermes: Hermes, relay: Station) -> None:
    """The connections end while events are written, not between two calls of the reader."""
    proxy = Proxy(relay.port)
    proxy.start()
    received: list[int] = []
    try:
        async with RelayClient(f"http://127.0.0.1:{proxy.port}", token("s")) as client:
            await say(hermes, "s", 1)
            async for item in client.follow(session="s"):
                received.append(item.seq)
                if len(received) == 25:
                    break
                proxy.set(Mode.RESET)
                await say(hermes, "s", 1)
                proxy.set(Mode.PASS)
    finally:
        proxy.stop()
    assert received == list(range(1, 26))


async def test_a_process_that_begins_anew_at_every_delivery_has_each_once(
    hermes: Hermes, redis_url: str
) -> None:
    log, _ = await written(hermes)
    wanted = [event["id"] for event in log if event["type"] in ("session.message", "task.cancelled")]
    done: list[str] = []
    while len(done) < len(wanted):
        async with hermes_over(RedisStore(redis_url)) as other:
            async for batch in other.session("s").batches(coalesce=0.0, limit=7):
                [*deliveries] = batch
                done.append(deliveries[0].id)
                assert await deliveries[0].ack()
                break  # what came with it comes again
    assert done == wanted
    assert await hermes.session("s").unread() == 0
    assert not [name for name in background_tasks() if "feed" in name]
