"""Whatever a crash left behind is brought to its end, by as many janitors as there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import subagent
from hermes_async.domain.errors import QueueUnavailable
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import MAX_LOSSES
from hermes_async.domain.task import Task, TaskStatus
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench(echo)


async def lost(bench: Bench, task: Task) -> Task:
    """The task as the worker left it that died with it."""
    claimed = await bench.store.claim(task.id, "dead", 15.0)
    assert claimed is not None
    bench.clock.ahead += 15.1
    return claimed


async def test_a_lost_attempt_is_followed_by_the_next(bench: Bench) -> None:
    task = await bench.dispatch(echo, "x")
    first = await lost(bench, task)
    swept = await bench.hermes.janitor.sweep()
    assert (swept.lost, swept.released) == (1, 0)  # it went to the gate at once
    record = await bench.record(task)
    assert (record.status, record.losses, record.attempt) == (TaskStatus.QUEUED, 1, 1)
    event = await bench.runner.run(await bench.queue.get())
    assert event is not None
    assert (event.type, event.attempt) == ("task.completed", 2)
    assert await bench.store.append(make_event(first, "task.completed")) == 0


async def test_a_task_that_kills_its_workers_is_given_up(bench: Bench) -> None:
    task = await bench.dispatch(echo, "x")
    for losses in range(1, MAX_LOSSES + 1):
        await lost(bench, task)
        assert (await bench.hermes.janitor.sweep()).lost == 1
        assert (await bench.record(task)).losses == min(losses, MAX_LOSSES - 1)
    record = await bench.record(task)
    assert (record.status, record.reason, record.attempt) == (TaskStatus.FAILED, Reason.WORKER_LOST, 3)
    assert record.error is not None
    assert record.error.message == "the worker was lost 3 times while it ran this task"


async def test_a_lost_attempt_that_was_to_be_cancelled_is(bench: Bench) -> None:
    task = await bench.dispatch(echo, "x")
    await lost(bench, task)
    await bench.store.append(make_event(task, "task.cancel_requested"))
    await bench.hermes.janitor.sweep()
    assert (await bench.record(task)).status is TaskStatus.CANCELLED


async def test_two_janitors_at_once_do_no_harm(bench: Bench) -> None:
    for n in range(10):
        await lost(bench, await bench.dispatch(echo, str(n)))
    bench.clock.ahead += 15.1
    swept = await asyncio.gather(*(bench.hermes.janitor.sweep() for _ in range(4)))
    assert sum(each.lost for each in swept) == 10
    ids = [await bench.queue.get() for _ in range(10)]
    assert len(set(ids)) == 10
    assert not any(bench.queue._lanes())


async def test_a_lease_that_is_renewed_is_left_alone(bench: Bench) -> None:
    task = await bench.dispatch(echo, "x")
    await lost(bench, task)
    await bench.store.renew("dead", [task.id], 15.0)
    assert (await bench.hermes.janitor.sweep()).lost == 0


class BrokenQueue(MemoryQueue):
    """A broker that is down for some messages."""

    def __init__(self) -> None:
        super().__init__()
        self.down = True

    async def publish_all(self, tasks: Sequence[Task]) -> None:
        if self.down:
            raise QueueUnavailable("down")
        await super().publish_all(tasks)


async def test_what_the_broker_did_not_take_is_published_later(make_bench: MakeBench) -> None:
    queue = BrokenQueue()
    bench = make_bench(echo, queue=queue)
    handle = await bench.session.dispatch(echo, "x")
    assert (await bench.hermes.janitor.sweep()).released == 0  # its publisher may yet succeed
    for _ in range(2):
        bench.clock.ahead += 10.1
        assert (await bench.hermes.janitor.sweep()).released == 1
    queue.down = False
    bench.clock.ahead += 10.1
    await bench.hermes.janitor.sweep()
    assert await queue.get() == handle.id
    await wait_until_async(lambda: bench.store._entries[handle.id].resend_at > bench.clock() + 11)
    bench.clock.ahead += 10.1
    assert (await bench.hermes.janitor.sweep()).released == 0


async def test_a_message_that_the_broker_has_lost_is_sent_again_more_and_more_seldom(bench: Bench) -> None:
    task = await bench.dispatch(echo, "x")
    for seconds in (60, 120, 240):
        await wait_until_async(lambda: bench.store._entries[task.id].resend_at > bench.clock() + 11)
        bench.clock.ahead += seconds - 1
        assert (await bench.hermes.janitor.sweep()).released == 0
        bench.clock.ahead += 1.1
        assert (await bench.hermes.janitor.sweep()).released == 1
        assert await bench.queue.get() == task.id
    event = await bench.runner.run(task.id)
    assert event is not None
    bench.clock.ahead += 3600
    assert (await bench.hermes.janitor.sweep()).released == 0


@pytest.mark.parametrize(
    ("options", "after", "reason"),
    [({"queue_timeout": 5.0}, 5.1, Reason.EXPIRED), ({"total_timeout": 5.0}, 7.1, Reason.TOTAL_TIMEOUT)],
)
async def test_a_task_that_waits_too_long_has_failed(
    bench: Bench, options: dict[str, float], after: float, reason: Reason
) -> None:
    task = await bench.dispatch(echo.options(**options), "x")
    bench.clock.ahead += after - 0.5
    assert (await bench.hermes.janitor.sweep()).expired == 0
    bench.clock.ahead += 0.5
    assert (await bench.hermes.janitor.sweep()).expired == 1
    record = await bench.record(task)
    assert (record.status, record.reason) == (TaskStatus.FAILED, reason)
    assert await bench.runner.run(task.id) is None
    assert (await bench.hermes.janitor.sweep()).expired == 0


async def test_a_task_that_has_begun_does_not_expire(bench: Bench) -> None:
    task = await bench.dispatch(echo.options(queue_timeout=5.0), "x")
    assert await bench.store.claim(task.id, "w1", 60.0)
    bench.clock.ahead += 6
    assert (await bench.hermes.janitor.sweep()).expired == 0


async def test_a_task_that_begins_just_now_does_not_expire(bench: Bench) -> None:
    task = await bench.dispatch(echo.options(queue_timeout=5.0), "x")
    bench.clock.ahead += 6.0
    overdue = await bench.store.overdue()
    assert await bench.store.claim(task.id, "w1", 60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.store, "overdue", lambda: answer(overdue))
        assert (await bench.hermes.janitor.sweep()).expired == 0
    assert (await bench.record(task)).status is TaskStatus.RUNNING


async def answer(value: Any) -> Any:
    return value


async def test_a_task_whose_worker_does_not_end_it_in_time_is_ended_and_revoked(bench: Bench) -> None:
    revoked: list[tuple[str, bool]] = []
    bench.queue.on_revoke(lambda task_id, force: revoked.append((task_id, force)))
    task = await bench.dispatch(echo.options(total_timeout=5.0), "x")
    assert await bench.store.claim(task.id, "w1", 60.0)
    bench.clock.ahead += 7.1
    assert (await bench.hermes.janitor.sweep()).expired == 1
    assert (await bench.record(task)).reason is Reason.TOTAL_TIMEOUT
    assert revoked == [(task.id, True)]


async def test_what_ended_is_forgotten_in_time(bench: Bench) -> None:
    task = await bench.dispatch(echo, "x")
    await bench.runner.run(task.id)
    assert await bench.hermes.janitor.prune(60.0) == 0
    bench.clock.ahead += 61
    assert await bench.hermes.janitor.prune(60.0) == 1
    assert await bench.store.load(task.id) is None
    assert await bench.store.last_seq("chat") == 0


async def test_a_record_that_cannot_be_read_keeps_nobody_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = [await bench.dispatch(echo, text) for text in ("broken", "good")]
    await lost(bench, broken)
    await lost(bench, good)
    load = bench.store.load

    async def load_some(task_id: str) -> Task | None:
        if task_id == broken.id:
            raise ValueError("not what was written")
        return await load(task_id)

    monkeypatch.setattr(bench.store, "load", load_some)
    assert (await bench.hermes.janitor.sweep()).lost == 1
    assert f"task {broken.id} cannot be mended" in caplog.text


async def test_a_tree_whose_time_is_over_ends_although_its_worker_has_died(bench: Bench) -> None:
    task = await bench.dispatch(echo.options(limits={"seconds": 5.0}), "x")
    parent = await bench.store.claim(task.id, "w1", 60.0)
    assert parent is not None
    child = make_task(parent_task_id=parent.id, parent_attempt=parent.attempt)
    await bench.store.create(child, None, None)
    bench.clock.ahead += 6.9
    assert (await bench.hermes.janitor.sweep()).expired == 0
    bench.clock.ahead += 0.2
    assert (await bench.hermes.janitor.sweep()).expired == 1
    assert (await bench.record(task)).reason is Reason.BUDGET_EXCEEDED
    assert (await bench.record(child)).status is TaskStatus.CANCELLED
