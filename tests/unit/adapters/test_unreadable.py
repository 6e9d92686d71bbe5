"""A log in which something stands that this version cannot read: its readers pass over it and go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from hermes_async.adapters.redis_store import RedisStore, codec
from hermes_async.core.children import Children
from hermes_async.core.hermes import Hermes
from hermes_async.relay.tail import Tail, Topic

pytestmark = pytest.mark.anyio

NEWER = {
    "id": "a:1:newer",
    "type": "task.newer",
    "time": "1500",
    "task": "t00-1",
    "agent": "echo",
    "attempt": "1",
    "trace": "ab",
    "data": '{"new": 1}',
}
DAMAGED = [
    NEWER,
    NEWER | {"type": "task.progress", "data": '{"progress_percent": "a lot"}'},
    NEWER | {"type": "session.message", "data": "{"},
    NEWER | {"type": "task.cancelled", "data": "{}", "time": "soon", "attempt": "9" * 5_000},
    {"type": "task.cancelled"},
    {"so": "what"},
]


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as a version does that does not know how a task of today ends."""
    known = {name: cls for name, cls in codec.CLASSES.items() if name != "task.completed"}
    monkeypatch.setattr(codec, "CLASSES", known)


async def write(hermes: Hermes, fields: Mapping[str, str]) -> None:
    """Write an event as the pen does, and tell everybody."""
    store = hermes.store
    assert isinstance(store, RedisStore)
    prefix = store._keys.of_session("chat")
    seq = await store._reads.read("HINCRBY", f"{prefix}session:chat", "seq", 1)
    flat = [text for pair in fields.items() for text in pair]
    for kind in ("events", "inbox"):
        await store._reads.read("XADD", f"{prefix}{kind}:chat", f"{seq}-0", *flat)
    nudge = "\n".join([str(seq), *fields.values()])
    await store._reads.read("PUBLISH", f"{prefix}nudge:chat", nudge)


async def first(items: AsyncIterator[Any], count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20), aclosing(items) as some:  # type: ignore[type-var]
        async for item in some:
            found.append(item)
            if len(found) == count:
                break
    return found


async def test_readers_of_the_log_and_of_the_inbox_go_on(
    hermes: Hermes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_WARNED", set())
    session, heard = hermes.session("chat"), asyncio.Queue[Any]()
    count = 2 * len(DAMAGED) + 2
    await session.on("*", heard.put_nowait)
    async with asyncio.TaskGroup() as readers:
        following = readers.create_task(first(session.events(), count))
        told = readers.create_task(first(session.inbox(), count))
        await session.send_message("before")
        with caplog.at_level(logging.WARNING, "hermes.store"):
            for fields in [*DAMAGED, *DAMAGED]:
                await write(hermes, fields)
        await session.send_message("after")
    before, *unread, after = following.result()
    assert [event.seq for event in following.result()] == list(range(1, count + 1))
    assert (before.data.text, after.data.text) == ("before", "after")
    assert {event.type for event in unread} == {"session.unreadable"}
    assert [event.data.type for event in unread[:6]] == [fields.get("type", "None") for fields in DAMAGED]
    said = unread[0]
    assert (said.id, said.task_id, said.agent, said.attempt, said.time) == (
        NEWER["id"],
        "t00-1",
        "echo",
        1,
        1.5,
    )
    assert [each.event for each in told.result()] == following.result()
    assert [await heard.get() for _ in range(count)] == following.result()
    assert await session.ack(*range(1, count + 1)) == count
    assert sum(record.name == "hermes.store" for record in caplog.records) == 5, "one for each type"


async def test_a_log_may_end_with_it(hermes: Hermes) -> None:
    await hermes.session("chat").send_message("before")
    await write(hermes, NEWER)
    assert await hermes.store.head("chat") == (2, NEWER["id"])
    assert await hermes.store.resume("chat", 2, NEWER["id"]) == 0


@pytest.mark.usefixtures("older")
async def test_an_end_that_cannot_be_read_is_found_in_the_record(hermes: Hermes) -> None:
    session, runner = hermes.session("chat"), hermes.runner("w1", 60.0)
    kin = Children(session._delegate)
    handle = await kin.submit("echo", "x")
    waiting = asyncio.ensure_future(handle.result())
    news = asyncio.ensure_future(kin.news())
    events = asyncio.ensure_future(first(handle.events(), 99))
    tail = Tail(hermes.store, Topic("chat", handle.id), 0)
    assert await runner.run(handle.id)
    async with asyncio.timeout(20):
        assert await waiting == "x"
        assert [(event.type, event.data.output) for event in await news] == [("task.completed", "x")]
        assert (await events)[-1].data.type == "task.completed"
        assert [event.type async for event in handle.events()][-1] == "session.unreadable"
        while not tail.ended:
            await tail.next(await hermes.store.last_seq("chat"))
