"""A parent's chat: its inbox and its messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.session import Delivery
from hermes_async.core.subagent import subagent
from hermes_async.domain.errors import InvalidInput, UnknownAgent
from hermes_async.domain.task import TaskStatus
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    ctx.message(f"working on {text}")
    return text


async def drained(bench: Bench) -> list[Delivery]:
    return list(await bench.session.pending())


async def test_the_inbox_holds_messages_and_results_until_acked(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    task = await bench.dispatch(echo, "x")
    assert await drained(bench) == []
    await bench.runner.run(task.id)
    said, done = await drained(bench)
    assert (said.event.type, said.event.data.text) == ("session.message", "working on x")
    assert (done.event.type, done.event.data.output, done.event.task_id) == ("task.completed", "x", task.id)
    assert [said.id, done.id] == [said.event.id, done.event.id]
    assert await said.ack() is True
    assert await said.ack() is False
    assert [each.id for each in await drained(bench)] == [done.id]
    assert await bench.session.ack(done.event.seq, 77) == 1
    assert await drained(bench) == []


async def test_what_is_not_acked_comes_again_and_news_follow(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    await bench.session.send_message("first")
    for _ in range(2):
        async for delivery in bench.session.inbox():
            assert delivery.event.data.text == "first"
            break
    read: list[Any] = []

    async def listen() -> None:
        async for delivery in bench.session.inbox():
            read.append(delivery.event.data.text)
            await delivery.ack()

    listening = asyncio.create_task(listen())
    await wait_until_async(lambda: read == ["first"])
    for text in ("second", "third"):
        await bench.session.send_message(text)
    await wait_until_async(lambda: read == ["first", "second", "third"])
    await wait_until_async(lambda: _is_empty(bench))
    listening.cancel()


async def _is_empty(bench: Bench) -> bool:
    return not await drained(bench)


async def test_sessions_do_not_hear_each_other(bench: Bench) -> None:
    other = bench.hermes.session("other")
    assert await other.send_message("for other") == 1
    assert await bench.session.send_message("for chat") == 1
    assert [each.event.data.text for each in await other.pending()] == ["for other"]
    assert [each.event.data.text for each in await bench.session.pending()] == ["for chat"]


async def test_a_message_carries_data(bench: Bench) -> None:
    seq = await bench.session.send_message("hello", {"a": (1, 2)})
    [event] = await bench.log()
    assert (event.seq, event.data.data, event.task_id) == (seq, {"a": [1, 2]}, None)


@pytest.mark.parametrize(("text", "data"), [("\ud800", None), ("x", object()), ("x", float("nan"))])
async def test_a_message_that_cannot_be_written_is_refused(bench: Bench, text: str, data: Any) -> None:
    with pytest.raises(InvalidInput, match="the message cannot be written as JSON"):
        await bench.session.send_message(text, data)
    assert await bench.log() == []


async def test_tasks_of_a_session_are_listed(make_bench: MakeBench) -> None:
    bench = make_bench(echo)
    first, second = await bench.dispatch(echo, "a"), await bench.dispatch(echo, "b")
    await bench.hermes.session("other").dispatch(echo, "c")
    await bench.runner.run(first.id)
    assert [task.id for task in await bench.session.tasks()] == [second.id, first.id]
    assert [task.id for task in await bench.session.tasks(status=TaskStatus.QUEUED)] == [second.id]
    assert len(await bench.hermes.tasks()) == 3


async def test_a_session_has_a_fit_id_and_a_known_parent(bench: Bench) -> None:
    assert bench.hermes.session().id != bench.hermes.session().id
    assert repr(bench.session) == "<Session chat>"
    with pytest.raises(InvalidInput):
        bench.hermes.session("")
    with pytest.raises(UnknownAgent, match="'nobody'"):
        bench.hermes.session("chat", parent="nobody")
