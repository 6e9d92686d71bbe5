"""A connection that dies after Redis has worked and before it has answered: what is repeated is done once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import pytest

from hermes_async.adapters.redis_store import pipe
from hermes_async.adapters.redis_store.store import CANCEL
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from tests.support.echoing import echo, hermes_over
from tests.support.proxy import Proxy, proxy_to
from tests.support.servers import PATIENCE, RedisServer, wait_until_async
from tests.support.values import make_event

pytestmark = pytest.mark.anyio

T = TypeVar("T")
TEXTS = [f"number {n:02}" for n in range(20)]


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with proxy_to(redis_server.port) as made:
        yield made


@pytest.fixture
async def near(proxy: Proxy, anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hermes]:
    """Loses its connection."""
    monkeypatch.setattr(pipe, "REPLY_TIMEOUT", PATIENCE)
    made = hermes_over(proxy.url)
    yield made
    await made.close()


@pytest.fixture
async def far(redis_url: str, anyio_backend: str) -> AsyncIterator[Hermes]:
    """Does not."""
    made = hermes_over(redis_url)
    yield made
    await made.close()


async def unanswered(
    proxy: Proxy, mark: str, asked: Sequence[Awaitable[T]], done: Callable[[], Awaitable[bool]]
) -> Sequence[T]:
    """Cut the connection over which a mark has gone once all is done; return the replies."""
    replies = asyncio.gather(*asked)
    with proxy.trap(mark.encode(), answered=True):
        await wait_until_async(done)
        assert not replies.done()
    return await replies


async def test_what_is_said_in_a_session_is_logged_once(proxy: Proxy, near: Hermes, far: Hermes) -> None:
    here, there = near.session("chat"), far.session("chat")

    async def done() -> bool:
        return await there.unread() == len(TEXTS)

    seqs = await unanswered(proxy, TEXTS[-1], [here.send_message(text) for text in TEXTS], done)
    found = await there.pending()
    assert [(each.event.seq, each.event.data.text) for each in found] == list(zip(seqs, TEXTS, strict=True))


async def test_what_is_said_to_a_task_is_read_once(proxy: Proxy, near: Hermes, far: Hermes) -> None:
    handle = await near.session("chat").dispatch(echo, "x")

    async def done() -> bool:
        return await far.store.last_seq("chat") == 1 + len(TEXTS)

    seqs = await unanswered(proxy, TEXTS[-1], [handle.send(text) for text in TEXTS], done)
    task = await far.store.claim(handle.id, "w1", 60.0)
    assert task is not None
    found = await far.store.hear(task, 0)
    assert found is not None
    assert [(event.seq, event.data.text) for event in found] == list(zip(seqs, TEXTS, strict=True))


async def dispatched(near: Hermes) -> TaskHandle[str]:
    """A task that is to be cancelled, by a script that the server knows."""
    session = near.session("chat")
    await (await session.dispatch(echo, "known")).cancel()
    return await session.dispatch(echo, "x")


async def test_a_cancel_knows_whom_it_has_stopped(proxy: Proxy, near: Hermes, far: Hermes) -> None:
    handle = await dispatched(near)
    record = await far.handle(handle.id)

    async def done() -> bool:
        return (await record.task()).status.is_terminal

    assert await unanswered(proxy, CANCEL.sha, [handle.cancel()], done) == [True]
    events = [event.type async for event in record.events()]
    assert events == ["task.queued", "task.cancel_requested", "task.cancelled"]
    assert not await handle.cancel()


async def test_a_cancel_knows_whom_it_has_asked_although_it_ended_since(
    proxy: Proxy, near: Hermes, far: Hermes
) -> None:
    handle = await dispatched(near)
    task = await far.store.claim(handle.id, "w1", 60.0)
    assert task is not None

    async def done() -> bool:
        is_asked = (await far.store.load(task.id) or task).cancel_requested
        return is_asked and bool(await far.store.append(make_event(task, "task.cancelled")))

    assert await unanswered(proxy, CANCEL.sha, [handle.cancel()], done) == [True]
