"""A Redis that lost its last writes: whoever has read them hears of it, and of what comes next."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes_async.core import feed
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import StoreUnavailable, UnknownTask
from hermes_async.domain.gap import Gap
from tests.support.echoing import echo, hermes_over
from tests.support.servers import RedisServer, running_redis, wait_until_async

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    yield from running_redis(tmp_path / "redis", "--appendfsync", "always", aof=True)


@pytest.fixture
async def hermes(server: RedisServer, anyio_backend: str) -> AsyncIterator[Hermes]:
    made = hermes_over(server.url)
    yield made
    await made.close()


def copied(server: RedisServer) -> Path:
    """Copy what the server has on disk, as a backup does."""
    copy = server.folder.with_name("copy")
    shutil.copytree(server.folder / "appendonlydir", copy)
    return copy


def set_back(server: RedisServer, copy: Path) -> None:
    """Lose the power, and come back with what was on disk some time before."""
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    shutil.copytree(copy, server.folder / "appendonlydir")
    server.start()


class Heard:
    """What an iteration has brought so far."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self.items: list[Any] = []
        self._task = asyncio.create_task(self._listen(items))

    async def _listen(self, items: AsyncIterator[Any]) -> None:
        async for item in items:
            self.items.append(item)

    async def until(self, is_there: Callable[[Any], bool]) -> Any:
        await wait_until_async(lambda: any(map(is_there, self.items)), 10)
        return next(filter(is_there, self.items))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


def says(text: str) -> Callable[[Any], bool]:
    return lambda item: getattr(getattr(item, "data", None), "text", None) == text


async def patiently_said(hermes: Hermes, text: str) -> None:
    for _ in range(50):
        try:
            await hermes.session("chat").send_message(text)
            return
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    raise AssertionError("the server did not come back")


@pytest.mark.parametrize("others", [0, 2, 3, 9], ids=lambda n: f"{n} events before anybody looks")
async def test_every_reader_hears_of_what_was_lost_and_of_what_comes(
    server: RedisServer, hermes: Hermes, others: int
) -> None:
    session = hermes.session("chat")
    await session.send_message("kept")
    copy = await asyncio.to_thread(copied, server)
    events = Heard(session.events())
    for text in ("lost 1", "lost 2", "lost 3"):
        await session.send_message(text)
    await events.until(says("lost 3"))
    inbox = Heard(session.inbox())
    await wait_until_async(lambda: len(inbox.items) == 4, 5)
    await asyncio.to_thread(set_back, server, copy)
    second = hermes_over(server.url)  # a process that knows nothing of what was lost, and is first to write
    for number in range(others):
        await second.session("chat").send_message(f"new {number}")
    gap = await events.until(lambda item: isinstance(item, Gap))
    restored = await events.until(lambda item: item.type == "session.restored")
    assert gap.last == restored.data.through == restored.seq - 1 >= 5
    await patiently_said(second, "after")
    after = await events.until(says("after"))
    assert after.seq == restored.seq + 1
    seqs = [item.seq for item in events.items]
    assert seqs == sorted(set(seqs))
    for number in range(others):  # in the log they may be hidden in the gap, in the inbox they are not
        await wait_until_async(
            lambda text=f"new {number}": any(text == d.event.data.text for d in inbox.items), 5
        )
    for task in (events, inbox):
        await task.close()
    await second.close()


async def test_a_handle_hears_of_an_end_that_came_again(server: RedisServer, hermes: Hermes) -> None:
    runner = hermes.runner("w1", 60.0)
    session = hermes.session("chat")
    handle = await session.dispatch(echo, "x")
    copy = await asyncio.to_thread(copied, server)
    late = await hermes.handle(handle.id)
    unknown = await session.dispatch(echo, "y")
    for number in range(5):
        await session.send_message(str(number))
    waiting = [asyncio.ensure_future(each.result()) for each in (late, unknown)]
    await wait_until_async(lambda: bool(hermes.feed._readers) and hermes.feed._readers["chat"].seq == 7, 5)
    await asyncio.to_thread(set_back, server, copy)
    second = hermes_over(server.url)
    assert await second.runner("w2", 60.0).run(handle.id)
    assert await asyncio.wait_for(waiting[0], 10) == "x"
    with pytest.raises(UnknownTask):
        await asyncio.wait_for(waiting[1], 10)
    assert await runner.run(handle.id) is None
    await second.close()


async def test_a_log_that_went_back_while_nobody_was_cut_off_shows_by_its_next_event(
    hermes: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_EVERY", 3600.0)
    session, store = hermes.session("chat"), hermes.store
    events = Heard(session.events())
    for number in range(3):
        await session.send_message(str(number))
    await events.until(says("2"))
    prefix = store._keys.of_session("chat")  # type: ignore[attr-defined]
    gone = (f"{prefix}{kind}:chat" for kind in ("session", "events", "inbox"))
    await store._reads.read("DEL", *gone)  # type: ignore[attr-defined]
    await session.send_message("first again")
    restored = await events.until(lambda item: item.type == "session.restored")
    await session.send_message("after")
    assert (await events.until(says("after"))).seq == restored.seq + 1 > 4
    await events.close()
