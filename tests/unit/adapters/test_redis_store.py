"""What only Redis does: parcels, and going away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.adapters.redis_store.nudges import RedisNudges
from hermes_async.core import feed
from hermes_async.core.hermes import Hermes
from hermes_async.core.home import Home
from hermes_async.core.ports import Parcel
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.events import RetryingData
from hermes_async.domain.failure import ErrorInfo
from tests.support.echoing import echo, hermes_over
from tests.support.servers import RedisServer, running_redis, wait_until, wait_until_async
from tests.support.silent import silent_server
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, that keeps what it was told."""
    yield from running_redis(tmp_path / "redis", aof=True)


@pytest.fixture
async def hermes(broken: RedisServer, anyio_backend: str) -> AsyncIterator[Hermes]:
    made = hermes_over(broken.url)
    yield made
    await made.close()


# -- parcels ---------------------------------------------------------------------------------------------
def waiting(url: str) -> list[str]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [fields["m"] for _, fields in client.xrange("queue")]


async def test_a_parcel_goes_with_every_attempt_of_its_task(redis_url: str) -> None:
    store = RedisStore(redis_url)
    task = make_task()
    await store.create(task, Parcel("queue", "message"), None)
    await store.create(task, Parcel("queue", "again"), None)
    assert waiting(redis_url) == ["message"]
    claimed = await store.claim(task.id, "w1", 60)
    assert claimed
    await store.append(make_event(claimed, "task.attempt_lost"))
    assert waiting(redis_url) == ["message"] * 2
    claimed = await store.claim(task.id, "w1", 60)
    assert claimed
    retrying = RetryingData(error=ErrorInfo(type="E"), delay=0.05, failures=1)
    await store.append(make_event(claimed, "task.retrying", retrying))
    assert waiting(redis_url) == ["message"] * 2
    await wait_until_async(store.tend)
    assert waiting(redis_url) == ["message"] * 3  # nothing is left to the caller
    assert await store.tend() == 0
    await store.close()


async def test_an_ended_task_gives_its_parcel_back(redis_url: str) -> None:
    store = RedisStore(redis_url)
    task = make_task()
    await store.create(task, Parcel("queue", "message"), None)
    claimed = await store.claim(task.id, "w1", 60)
    assert claimed
    await store.append(make_event(claimed, "task.completed"))
    fields = await store._reads.read("HGETALL", f"{store._keys.of_task(task.id)}task:{task.id}")
    assert fields["parcel"] == ""
    await store.close()


# -- a server that goes away -----------------------------------------------------------------------------
async def test_without_redis_a_dispatch_fails_clearly_and_soon(hermes: Hermes, broken: RedisServer) -> None:
    session = hermes.session("chat")
    await session.dispatch(echo, "x")
    broken.kill()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=rf"Redis at redis://127.0.0.1:{broken.port}/0 does not work"):
        await session.dispatch(echo, "x")
    assert time.monotonic() - began < 3


async def test_a_restarted_redis_is_used_again(hermes: Hermes, broken: RedisServer) -> None:
    session = hermes.session("chat")
    first = await session.dispatch(echo, "x")
    broken.restart()
    second = await session.dispatch(echo, "y")
    assert [task.id for task in await session.tasks()] == [second.id, first.id]


async def test_a_result_arrives_across_a_restart(hermes: Hermes, broken: RedisServer) -> None:
    handle = await hermes.session("chat").dispatch(echo, "x")
    result = asyncio.ensure_future(handle.result())
    events = asyncio.ensure_future(_types(hermes, handle.id))
    await wait_until_async(lambda: hermes.feed._readers and hermes.feed._readers["chat"].followers == 2)
    await asyncio.to_thread(broken.stop)
    await asyncio.to_thread(broken.start)
    await hermes.runner("w1", 60.0).run(handle.id)
    assert await asyncio.wait_for(result, 10) == "x"
    assert await asyncio.wait_for(events, 10) == ["task.queued", "task.started", "task.completed"]


async def _types(hermes: Hermes, task_id: str) -> list[str]:
    handle = await hermes.handle(task_id)
    return [event.type async for event in handle.events()]


async def test_a_run_waits_for_redis_to_come_back(hermes: Hermes, broken: RedisServer) -> None:
    handle = await hermes.session("chat").dispatch(echo, "x")
    await asyncio.to_thread(broken.stop)
    run = asyncio.create_task(hermes.runner("w1", 60.0).run(handle.id))
    await asyncio.sleep(0.1)
    assert not run.done()
    await asyncio.to_thread(broken.start)
    event = await asyncio.wait_for(run, 10)
    assert event is not None
    assert event.type == "task.completed"


async def test_nudges_come_again_after_a_restart(
    hermes: Hermes, broken: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 3600.0)
    session = hermes.session("chat")
    events = session.events()
    await session.send_message("before")
    assert (await asyncio.wait_for(anext(events), 5)).data.text == "before"
    await asyncio.to_thread(broken.stop)
    await asyncio.to_thread(broken.start)
    channel = f"{hermes.store._keys.of_session('chat')}nudge:chat"  # type: ignore[attr-defined]
    with broken.client() as client:
        await asyncio.to_thread(wait_until, lambda: client.pubsub_numsub(channel) == [(channel, 1)])
    await session.send_message("after")
    assert (await asyncio.wait_for(anext(events), 5)).data.text == "after"


async def test_who_listens_to_a_silent_server_is_told_within_three_seconds() -> None:
    async with silent_server() as port:
        nudges = RedisNudges(f"redis://127.0.0.1:{port}/0", Home())
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            async with nudges.listen("channel"):
                pass
        assert time.monotonic() - began < 3
        await nudges.close()


async def test_a_thousand_readers_need_a_handful_of_connections(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        others = client.info("clients")["connected_clients"]
    store = RedisStore(redis_url)
    task = await store.create(make_task(), None, None)
    await asyncio.gather(
        *(store.load(task.id) for _ in range(500)), *(store.events("chat", 0, 10) for _ in range(500))
    )
    with redis.Redis.from_url(redis_url) as client:
        assert client.info("clients")["connected_clients"] <= others + 4
    await store.close()


async def test_no_task_and_no_connection_outlives_the_store(redis_url: str) -> None:
    before = asyncio.all_tasks()
    with redis.Redis.from_url(redis_url) as client:
        clients = client.info("clients")["connected_clients"]
    hermes = hermes_over(redis_url)
    handle = await hermes.session("chat").dispatch(echo, "x")
    waiting = asyncio.ensure_future(handle.result())
    await wait_until_async(lambda: bool(hermes.feed._readers))
    waiting.cancel()
    await asyncio.wait({waiting})
    await hermes.close()
    assert asyncio.all_tasks() == before
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: client.info("clients")["connected_clients"] <= clients)


async def test_who_begins_to_listen_while_it_connects_again_connects_nothing_else(redis_url: str) -> None:
    nudges = RedisNudges(redis_url, Home())
    client = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
    async with client, AsyncExitStack() as stack:
        await stack.enter_async_context(nudges.listen("first"))
        for number in range(20):
            await client.client_kill_filter(_type="pubsub")
            names = [f"{number}-{each}" for each in range(3)]
            hints = await asyncio.gather(*(stack.enter_async_context(nudges.listen(name)) for name in names))
            waiting = [asyncio.create_task(hint.wait(10.0)) for hint in hints]
            for name in names:
                await client.publish(name, 1)
            await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
            assert len(await client.client_list(_type="pubsub")) == 1
    await nudges.close()
