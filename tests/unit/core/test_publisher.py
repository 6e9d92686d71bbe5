"""What the gate lets in goes to the broker in the background, in batches, whatever the broker does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.ports import PUBLISH_GRACE
from hermes_async.core.subagent import subagent
from hermes_async.domain.errors import QueueUnavailable
from hermes_async.domain.task import Task
from hermes_async.sdk import TaskContext
from tests.support.bench import MakeBench
from tests.support.servers import PATIENCE, wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def nothing(ctx: TaskContext) -> None:
    """Never run here."""


class SlowQueue(MemoryQueue):
    """A broker that takes what it gets when its test says so, or is down."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.is_down = False
        self.batches: list[list[str]] = []

    async def publish_all(self, tasks: Sequence[Task]) -> None:
        self.batches.append([task.id for task in tasks])
        await self.open.wait()
        if self.is_down:
            raise QueueUnavailable("the broker is down")
        await super().publish_all(tasks)


async def test_a_slow_broker_holds_up_nobody_and_gets_the_rest_in_one_batch(make_bench: MakeBench) -> None:
    queue = SlowQueue()
    bench = make_bench(nothing, queue=queue)
    async with asyncio.timeout(5.0):
        first = await bench.session.dispatch(nothing)
        await wait_until_async(lambda: queue.batches)
        handles = [await bench.session.dispatch(nothing) for _ in range(20)]
    queue.open.set()
    assert [await queue.get() for _ in range(21)] == [first.id, *(handle.id for handle in handles)]
    assert queue.batches == [[first.id], [handle.id for handle in handles]]


async def test_what_was_cancelled_meanwhile_is_not_published(make_bench: MakeBench) -> None:
    queue = SlowQueue()
    bench = make_bench(nothing, queue=queue)
    first = await bench.session.dispatch(nothing)
    await wait_until_async(lambda: queue.batches)
    handles = [await bench.session.dispatch(nothing) for _ in range(3)]
    await handles[1].cancel()
    queue.open.set()
    assert [await queue.get() for _ in range(3)] == [first.id, handles[0].id, handles[2].id]


@pytest.mark.parametrize(("count", "told"), [(1, "1 task waits"), (2, "2 tasks wait")])
async def test_what_could_not_be_published_comes_with_the_janitor(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture, count: int, told: str
) -> None:
    queue = SlowQueue()
    queue.open.set()
    queue.is_down = True
    bench = make_bench(nothing, queue=queue)
    with caplog.at_level(logging.WARNING, "hermes.journal"):
        handles = await bench.session.dispatch_many(nothing, [{}] * count)
        await wait_until_async(lambda: caplog.records)
    assert f"{told} for the broker: the broker is down" in caplog.text
    queue.is_down = False
    assert (await bench.hermes.janitor.sweep()).released == 0  # its publisher has some seconds
    bench.clock.ahead += PUBLISH_GRACE + 1
    assert (await bench.hermes.janitor.sweep()).released == count
    assert [await queue.get() for _ in range(count)] == [handle.id for handle in handles]


async def test_a_batch_that_cannot_be_published_does_not_keep_what_came_meanwhile(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = SlowQueue()
    bench = make_bench(nothing, queue=queue)
    published, faults = bench.store.published, [ValueError("no")]

    async def weak(task_ids: Sequence[str]) -> None:
        if faults:
            raise faults.pop()
        await published(task_ids)

    monkeypatch.setattr(bench.store, "published", weak)
    first = await bench.session.dispatch(nothing)
    await wait_until_async(lambda: queue.batches)
    second = await bench.session.dispatch(nothing)
    queue.open.set()
    async with asyncio.timeout(PATIENCE):
        assert [await queue.get() for _ in range(2)] == [first.id, second.id]
    assert "1 tasks wait for the janitor" in caplog.text


async def test_closing_waits_for_what_is_under_way(make_bench: MakeBench) -> None:
    queue = SlowQueue()
    bench = make_bench(nothing, queue=queue)
    handle = await bench.session.dispatch(nothing)
    await wait_until_async(lambda: queue.batches)
    closing = asyncio.create_task(bench.hermes.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    queue.open.set()
    await closing
    assert await queue.get() == handle.id
