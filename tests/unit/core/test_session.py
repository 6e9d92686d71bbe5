"""A parent's chat: its inbox and its messages."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.session import Batch, Delivery, Session
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


async def test_an_end_below_a_task_is_inner(make_bench: MakeBench) -> None:
    @subagent
    async def outer(ctx: TaskContext) -> None:
        ctx.message("hello")
        await ctx.dispatch(echo, "x")

    bench = make_bench(outer, echo)
    parent = await bench.dispatch(outer)
    running = asyncio.create_task(bench.runner.run(parent.id))
    await bench.runner.run(await bench.queue.get())
    await running
    found = await drained(bench)
    told = [(each.event.type, each.event.agent, await each.is_inner()) for each in found]
    assert sorted(told) == [
        ("session.message", "echo", False),
        ("session.message", "outer", False),
        ("task.completed", "echo", True),
        ("task.completed", "outer", False),
    ]
    bench.clock.ahead = 1e9
    assert await bench.store.prune(1.0) == 2
    assert [await each.is_inner() for each in found] == [False] * 4


# -- batches ---------------------------------------------------------------------------------------------
def numbers(batch: Batch) -> list[int]:
    return [int(each.event.data.text) for each in batch]


async def say(bench: Bench, *numbers: int) -> None:
    for number in numbers:
        await bench.session.send_message(str(number))


class Turns:
    """A parent that takes a turn for each batch, and notes what was in it."""

    def __init__(self, bench: Bench, ack: bool = True, **how: Any) -> None:
        self.batches: list[Batch] = []
        #: A turn ends while this is set.
        self.free = asyncio.Event()
        self.free.set()
        self._ack = ack
        self._running = asyncio.create_task(self._run(bench.session, how))

    async def _run(self, session: Session, how: dict[str, Any]) -> None:
        async for batch in session.batches(**how):
            self.batches.append(batch)
            await self.free.wait()
            if self._ack:
                assert await batch.ack() == len(batch)

    @property
    def numbers(self) -> list[list[int]]:
        return [numbers(batch) for batch in self.batches]

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})


async def test_nineteen_completions_become_one_turn(bench: Bench) -> None:
    turns = Turns(bench, coalesce=0.3)
    await wait_until_async(lambda: bench.followers)
    began = time.monotonic()
    for number in range(19):
        await say(bench, number)
        await asyncio.sleep(0.005)
    await wait_until_async(lambda: turns.batches)
    assert turns.numbers == [list(range(19))]
    assert 0.3 <= time.monotonic() - began < 3.0
    await wait_until_async(lambda: _is_empty(bench))
    await turns.stop()


async def test_a_full_batch_waits_no_longer_and_the_rest_comes_with_the_next(bench: Bench) -> None:
    await say(bench, *range(7))
    turns = Turns(bench, coalesce=3600.0, limit=3)
    await wait_until_async(lambda: len(turns.batches) == 2)
    await say(bench, 7)
    await asyncio.sleep(0.05)
    assert turns.numbers == [[0, 1, 2], [3, 4, 5]]
    await say(bench, 8, 9, 10)  # at once, and more than there is room for
    await wait_until_async(lambda: len(turns.batches) == 3)
    assert turns.numbers[2] == [6, 7, 8]
    await turns.stop()


async def test_news_without_a_pause_do_not_hold_a_batch_back(bench: Bench) -> None:
    turns = Turns(bench, coalesce=0.1, limit=100_000)
    await wait_until_async(lambda: bench.followers)
    began = time.monotonic()
    for number in itertools.count():
        await say(bench, number)
        if turns.batches:
            break
        assert time.monotonic() - began < 5.0
        await asyncio.sleep(0.01)
    await turns.stop()


async def test_a_busy_parent_finds_what_came_meanwhile_in_one_batch(bench: Bench) -> None:
    turns = Turns(bench, coalesce=0.0)
    turns.free.clear()
    await say(bench, 1)
    await wait_until_async(lambda: turns.numbers == [[1]])
    await say(bench, *range(2, 9))
    turns.free.set()
    await wait_until_async(lambda: len(turns.batches) == 2)
    assert turns.numbers[1] == list(range(2, 9))
    await turns.stop()


async def test_an_idle_parent_is_woken_and_asks_for_nothing_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    read = bench.store.inbox

    async def counted(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return await read(*args)

    monkeypatch.setattr(bench.store, "inbox", counted)
    turns = Turns(bench, coalesce=0.0)
    await wait_until_async(lambda: asked == 1)
    await asyncio.sleep(0.2)
    assert asked == 1
    began = time.monotonic()
    await say(bench, 1)
    await wait_until_async(lambda: turns.batches, every=0.001)
    assert time.monotonic() - began < 1.0  # far less than the reader looks by itself
    await turns.stop()


async def test_what_was_not_acked_comes_again_after_a_day_in_order_and_with_the_same_ids(
    bench: Bench,
) -> None:
    await say(bench, *range(5))
    first = Turns(bench, ack=False, coalesce=0.0)
    await wait_until_async(lambda: first.batches)
    await first.stop()
    await list(first.batches[0])[1].ack()
    bench.clock.ahead = 86_400.0
    await bench.store.prune(7 * 86_400.0)
    again = Turns(bench, coalesce=0.0)
    await wait_until_async(lambda: again.batches)
    await again.stop()
    ids = [each.id for each in first.batches[0]]
    assert [each.id for each in again.batches[0]] == [ids[0], *ids[2:]]


async def test_of_two_consumers_exactly_one_takes_each_delivery(bench: Bench) -> None:
    """Both are handed everything; what was there when they acknowledge is theirs."""
    taken: list[int] = []

    async def consume() -> None:
        async for delivery in bench.session.inbox():
            await asyncio.sleep(0)
            if await delivery.ack():
                taken.append(int(delivery.event.data.text))

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    await say(bench, *range(50))
    await wait_until_async(lambda: len(taken) == 50)
    assert sorted(taken) == list(range(50))
    for consumer in consumers:
        consumer.cancel()


async def test_an_inbox_is_counted_and_looked_through_without_taking_anything(bench: Bench) -> None:
    assert await bench.session.unread() == 0
    await say(bench, *range(5))
    first = await bench.session.pending(limit=2)
    rest = await bench.session.pending(after=first[-1].event.seq)
    assert [each.event.data.text for each in [*first, *rest]] == list("01234")
    assert await bench.session.unread() == 5
    assert await Batch(first, bench.session).ack() == 2
    assert await bench.session.unread() == 3


@pytest.mark.parametrize("how", [{"coalesce": -1}, {"coalesce": float("nan")}, {"limit": 0}])
async def test_a_batch_that_cannot_be_is_refused(bench: Bench, how: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"^Session.batches: (coalesce|limit): Input should be greater"):
        await anext(bench.session.batches(**how))


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
    with pytest.raises(InvalidInput, match=r"it has half a character|cannot be written as JSON"):
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
