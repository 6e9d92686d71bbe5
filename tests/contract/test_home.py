"""Where a Hermes may be used, and until when: who asks from elsewhere, or too late, is told so at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import Closed, UserError
from tests.contract.conftest import MakeStore
from tests.support.echoing import echo
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio

LOOP = r"^this Hermes belongs to another event loop: open one here, with `connect\(\)`$"
PROCESS = "this Hermes belongs to another process: open one here, with `connect()`"
CLOSED = r"^this Hermes is closed: open another, with `connect\(\)`$"

#: What asks the store, reads from the feed, writes, or closes; each is given a task of the session.
USES: dict[str, Callable[[Hermes, str], Awaitable[object]]] = {
    "tasks": lambda hermes, task_id: hermes.tasks(),
    "handle": lambda hermes, task_id: hermes.handle(task_id),
    "dispatch": lambda hermes, task_id: hermes.session("chat").dispatch(echo, "x"),
    "message": lambda hermes, task_id: hermes.session("chat").send_message("x"),
    "pending": lambda hermes, task_id: hermes.session("chat").pending(),
    "events": lambda hermes, task_id: first(hermes.session("chat").events()),
    "batches": lambda hermes, task_id: first(hermes.session("chat").batches()),
    "on": lambda hermes, task_id: hermes.session("chat").on("*", print),
}


async def first(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


async def all_of(items: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in items]


@pytest.fixture
async def hermes(make_store: MakeStore, anyio_backend: str) -> AsyncIterator[Hermes]:
    hermes = Hermes(Registry(AgentsConfig(), [echo]), make_store(), MemoryQueue())
    yield hermes
    await hermes.close()


async def within(seconds: float, asked: Awaitable[object]) -> object:
    async with asyncio.timeout(seconds):
        return await asked


@pytest.mark.parametrize("use", USES)
async def test_another_event_loop_is_refused_at_once_and_its_own_goes_on(hermes: Hermes, use: str) -> None:
    handle = await hermes.session("chat").dispatch(echo, "x")
    listening = asyncio.create_task(first(hermes.session("chat").events(after=1)))
    await wait_until_async(lambda: hermes.feed.expect("chat", handle.id) is not None)
    with pytest.raises(UserError, match=LOOP):
        await asyncio.to_thread(asyncio.run, within(5, USES[use](hermes, handle.id)))
    await hermes.session("chat").send_message("here")
    assert (await within(5, listening)).data.text == "here"  # type: ignore[attr-defined]


async def test_a_handle_of_another_event_loop_is_refused_even_while_somebody_listens(hermes: Hermes) -> None:
    handle = await hermes.session("chat").dispatch(echo, "x")
    waiting = asyncio.create_task(handle.ended())
    await wait_until_async(lambda: hermes.feed.expect("chat", handle.id) is not None)
    with pytest.raises(UserError, match=LOOP):
        await asyncio.to_thread(asyncio.run, within(5, handle.ended()))
    await handle.cancel()
    assert (await within(5, waiting)).id == handle.id  # type: ignore[attr-defined]


async def test_only_its_own_event_loop_may_close_it(hermes: Hermes) -> None:
    await hermes.tasks()
    with pytest.raises(UserError, match=LOOP):
        await asyncio.to_thread(asyncio.run, within(5, hermes.close()))
    assert await hermes.tasks() == []


async def test_who_has_no_event_loop_of_asyncio_is_told_what_is_needed(hermes: Hermes) -> None:
    def as_trio_does() -> None:
        hermes.session("chat").pending().send(None)

    with pytest.raises(
        UserError, match=r"needs asyncio, of which no event loop runs here: .* \(trio cannot\)"
    ):
        await asyncio.to_thread(as_trio_does)


@pytest.mark.parametrize("use", USES)
async def test_a_closed_one_is_refused_at_once(hermes: Hermes, use: str) -> None:
    handle = await hermes.session("chat").dispatch(echo, "x")
    await hermes.close()
    before = asyncio.all_tasks()
    with pytest.raises(Closed, match=CLOSED):
        await within(5, USES[use](hermes, handle.id))
    with pytest.raises(Closed, match=CLOSED):
        await within(5, handle)
    assert asyncio.all_tasks() == before
    await hermes.close()


async def test_closing_ends_what_goes_on_for_ever_and_refuses_what_waits_for_an_end(hermes: Hermes) -> None:
    session = hermes.session("chat")
    handle = await session.dispatch(echo, "x")

    endless = [
        asyncio.create_task(all_of(each)) for each in (session.events(1), session.inbox(), session.batches())
    ]
    endings = [asyncio.create_task(each) for each in (handle.result(), all_of(handle.events()))]
    await wait_until_async(lambda: [each.followers for each in hermes.feed._readers.values()] == [5])
    await hermes.close()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*endless) == [[], [], []]
        for ending in endings:
            with pytest.raises(Closed, match=CLOSED):
                await ending


async def test_handlers_that_had_not_begun_when_it_was_closed_end_quietly(hermes: Hermes) -> None:
    await hermes.session("chat").on("*", print)
    [band] = hermes.listeners._bands.values()
    hermes.store.home.is_closed = True
    await asyncio.wait({band.task}, timeout=5)
    assert band.task.exception() is None


async def test_a_reader_that_had_not_begun_when_it_was_closed_is_the_end_of_its_stream(
    hermes: Hermes,
) -> None:
    listening = asyncio.create_task(all_of(hermes.session("chat").events()))
    await asyncio.sleep(0)
    assert [reader.is_reading for reader in hermes.feed._readers.values()] == [False]
    hermes.store.home.is_closed = True
    assert await asyncio.wait_for(listening, 5) == []


FORKS = """
import asyncio, os, sys
from hermes_async import UserError
from hermes_async.adapters.memory import MemoryQueue, MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig

loop = asyncio.new_event_loop()
url = sys.argv[1]
hermes = Hermes(Registry(AgentsConfig()), RedisStore(url) if url else MemoryStore(), MemoryQueue())

async def say(text):
    await hermes.session("chat").send_message(text)

def tries(run):
    try:
        run(asyncio.wait_for(say("in the child"), 5))
    except BaseException as exc:
        print(type(exc).__name__, exc, flush=True)

loop.run_until_complete(say("before"))
child = os.fork()
if not child:
    tries(asyncio.run)
    tries(loop.run_until_complete)
    os._exit(0)
os.waitpid(child, 0)
loop.run_until_complete(say("after"))
events = loop.run_until_complete(hermes.store.events("chat", 0, 10)).events
print([event.data.text for event in events], flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("kept", ["memory", "redis"])
async def test_a_forked_child_is_refused_and_its_parent_goes_on(
    kept: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_url") if kept == "redis" else ""
    run = [sys.executable, "-c", FORKS, url]
    done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=50)
    refused = f"UserError {PROCESS}"
    assert done.stdout.splitlines() == [refused, refused, "['before', 'after']"], done.stderr
