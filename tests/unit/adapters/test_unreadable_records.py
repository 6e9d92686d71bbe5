"""A record that this version cannot read harms no other, and its task ends all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from hermes_async.adapters.redis_store import reading
from hermes_async.core import runner
from hermes_async.core.children import Children
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Delivery
from hermes_async.domain.errors import TaskCancelled, TaskFailed, UnreadableTask
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import TaskStatus
from hermes_async.relay.tail import Tail, Topic
from tests.support.damage import DAMAGES, damage, raw
from tests.support.servers import PATIENCE, wait_until_async
from tests.support.values import make_task

pytestmark = pytest.mark.anyio

#: Those with which a worker is told to run the task.
TO_BE_RUN = {
    name: fields
    for name, fields in DAMAGES.items()
    if name not in ("a status of the future", "a partial of the future")
}
CUT_OFF = DAMAGES["cut off"]
every_damage = pytest.mark.parametrize("fields", DAMAGES.values(), ids=DAMAGES)
Damage = Mapping[str, str | None]


async def pair(hermes: Hermes, fields: Damage = CUT_OFF) -> tuple[TaskHandle[Any], TaskHandle[Any]]:
    """Dispatch two tasks, of which the first is spoilt."""
    bad, good = [await hermes.session("chat").dispatch("echo", text) for text in ("bad", "good")]
    await damage(hermes.store, bad.id, fields)
    return bad, good


async def log(hermes: Hermes, task_id: str) -> list[AnyEvent]:
    events = (await hermes.store.events("chat", 0, 1_000)).events
    return [event for event in events if event.task_id == task_id]


async def claim(hermes: Hermes, *handles: TaskHandle[Any], lease: float = 60.0) -> None:
    """Claim tasks as a worker does that then dies."""
    for handle in handles:
        with suppress(UnreadableTask):
            await hermes.store.claim(handle.id, "dead", lease)


@every_damage
async def test_lists_leave_it_out_and_tell_once(
    hermes: Hermes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fields: Damage
) -> None:
    monkeypatch.setattr(reading, "_TOLD", set())
    bad, good = await pair(hermes, fields)
    with caplog.at_level(logging.WARNING, "hermes.store"):
        for found in (
            await hermes.session("chat").tasks(),
            await hermes.tasks(),
            (await hermes.store.snapshot("chat")).tasks,
            await hermes.store.load_all([good.id, bad.id, "t00-none"]),
        ):
            assert [task.id for task in found] == [good.id]
            assert found[0].as_json()["id"] == good.id
    [told] = [record.getMessage() for record in caplog.records if record.name == "hermes.store"]
    assert told.startswith(f"task {bad.id} is left out: ")
    assert "\n" not in told
    with pytest.raises(UnreadableTask, match="cannot read the record of task") as caught:
        await hermes.store.load(bad.id)
    known = caught.value.known
    assert (known.id, known.session_id, known.status.is_terminal) == (bad.id, "chat", False)
    assert known.birth.trace_id == bad.trace_id or "trace" in fields
    assert known.as_json()["id"] == bad.id


@pytest.mark.parametrize("fields", TO_BE_RUN.values(), ids=TO_BE_RUN)
async def test_a_claim_ends_it_by_an_event_that_all_understand(hermes: Hermes, fields: Damage) -> None:
    bad, good = await pair(hermes, fields)
    waiting = [asyncio.create_task(handle.result()) for handle in (bad, good)]
    worker = hermes.runner("w1", 60.0)
    async with asyncio.timeout(PATIENCE):
        ends = await asyncio.gather(*(worker.run(handle.id) for handle in (bad, good)))
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert ends[0] is None
    assert (ends[1] and ends[1].type, results[1]) == ("task.completed", "good")
    assert isinstance(results[0], TaskFailed)
    assert (results[0].reason, results[0].error and results[0].error.type) == (Reason.ERROR, "UnreadableTask")
    assert [event.type for event in await log(hermes, bad.id)] == [
        "task.queued",
        "task.started",
        "task.failed",
    ]
    assert await raw(hermes.store, bad.id, "status", "attempt") == ["failed", "1"]
    assert await worker.run(bad.id) is None
    assert (await hermes.traffic()).admitted["async"] == 0
    assert {each.event.task_id for each in await hermes.session("chat").pending()} == {bad.id, good.id}


async def test_one_that_is_to_be_cancelled_is_cancelled(hermes: Hermes) -> None:
    bad, _ = await pair(hermes)
    await claim(hermes, bad, lease=0.001)
    await hermes.store.cancel(bad.id, force=False, cascade=True)
    await wait_until_async(lambda: _swept(hermes))
    assert (await log(hermes, bad.id))[-1].type == "task.cancelled"


@pytest.mark.parametrize("fields", [CUT_OFF, DAMAGES["no agent"], DAMAGES["a partial of the future"]])
async def test_the_janitor_ends_an_attempt_whose_worker_has_died(hermes: Hermes, fields: Damage) -> None:
    bad, good = await pair(hermes, fields)
    await claim(hermes, bad, good, lease=0.001)
    lost = 0

    async def all_are_mended() -> bool:
        nonlocal lost
        lost += (await hermes.janitor.sweep()).lost
        return lost == 2

    await wait_until_async(all_are_mended)
    assert (await log(hermes, bad.id))[-1].type == "task.failed"
    assert (await log(hermes, good.id))[-1].type == "task.attempt_lost"
    assert (await hermes.janitor.sweep()).lost == 0


async def test_one_whose_time_is_over_ends_and_one_of_the_future_holds_up_nobody(
    hermes: Hermes, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [make_task("chat", options={"queue_timeout": 0.001}) for _ in range(3)]
    for task in tasks:
        await hermes.store.create(task, None, None)
    bad, future, good = tasks
    await damage(hermes.store, bad.id, CUT_OFF)
    await damage(hermes.store, future.id, DAMAGES["a status of the future"])
    await wait_until_async(lambda: _overdue(hermes, 3))
    assert (await hermes.janitor.sweep()).expired == 2
    for task in (bad, good):
        assert (await log(hermes, task.id))[-1].type == "task.failed"
    assert [event.type for event in await log(hermes, future.id)] == ["task.queued"]
    assert "cannot be mended" not in caplog.text


async def _swept(hermes: Hermes) -> bool:
    return (await hermes.janitor.sweep()).lost == 1


async def _overdue(hermes: Hermes, count: int) -> bool:
    return len(await hermes.store.overdue()) == count


@pytest.mark.parametrize("fields", [CUT_OFF, DAMAGES["no agent"], DAMAGES["no time"]])
async def test_it_can_be_cancelled(hermes: Hermes, fields: Damage) -> None:
    bad, good = await pair(hermes, fields)
    for at in (hermes, hermes.session("chat")):
        handle = await at.handle(bad.id)
        assert (handle.id, handle.session_id) == (bad.id, "chat")
    assert await handle.cancel()
    assert not await handle.cancel()
    assert (await log(hermes, bad.id))[-1].type == "task.cancelled"
    assert (await good.task()).status is TaskStatus.QUEUED
    with pytest.raises(UnreadableTask):
        await handle.task()
    with pytest.raises(TaskCancelled):
        await (await hermes.handle(bad.id)).result()


async def test_an_output_that_cannot_be_read_is_no_result(hermes: Hermes) -> None:
    bad, good = await pair(hermes, {})
    for handle in (bad, good):
        await hermes.runner("w1", 60.0).run(handle.id)
    await damage(hermes.store, bad.id, {"output": "<b>"})
    with pytest.raises(UnreadableTask):
        await (await hermes.handle(bad.id)).result()
    assert await (await hermes.handle(good.id)).result() == "good"


async def test_who_follows_it_is_told_of_its_end(hermes: Hermes) -> None:
    bad, _ = await pair(hermes)
    found = await hermes.handle(bad.id)  # as another process does
    result = asyncio.create_task(found.result())
    events = asyncio.create_task(_all(found.events()))
    tail = Tail(hermes.store, Topic("chat", bad.id), 0)
    await tail.next(await hermes.store.last_seq("chat"))
    await tail.next(await hermes.store.last_seq("chat"))
    assert not tail.ended
    await hermes.runner("w1", 60.0).run(bad.id)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TaskFailed):
            await result
        assert (await events)[-1].type == "task.failed"
        assert [event.type async for event in found.events()][-1] == "task.failed"
        while not tail.ended:
            await tail.next(await hermes.store.last_seq("chat"))
    end = (await hermes.session("chat").pending())[0]
    assert isinstance(end, Delivery)
    assert not await end.is_inner()


async def _all(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


async def test_a_parent_goes_on_with_its_other_children(hermes: Hermes) -> None:
    kin = Children(hermes.session("chat")._delegate)
    bad, good = [await kin.submit("echo", text) for text in ("bad", "good")]
    await damage(hermes.store, bad.id, CUT_OFF)
    assert [task.id for task in await kin.tasks()] == [good.id]
    worker = hermes.runner("w1", 60.0)
    news: list[AnyEvent] = []
    async with asyncio.timeout(PATIENCE):
        for handle in (bad, good):
            await worker.run(handle.id)
        while len(news) < 2:
            news += await kin.news()
        await kin.ended()
    assert {event.task_id: event.type for event in news} == {bad.id: "task.failed", good.id: "task.completed"}


async def test_an_attempt_whose_record_is_spoilt_under_way_is_settled(hermes: Hermes) -> None:
    bad, _ = await pair(hermes, {})
    attempt = await hermes.runner("w1", 60.0).claim(bad.id)
    assert attempt is not None
    await damage(hermes.store, bad.id, CUT_OFF)
    await hermes.store.cancel(bad.id, force=False, cascade=True)
    event = await hermes.runner("w1", 60.0).settle(attempt, runner.Interrupted())
    assert event is not None
    assert event.type == "task.cancelled"
    assert await raw(hermes.store, bad.id, "status") == ["cancelled"]


async def test_it_stands_among_those_of_a_batch(hermes: Hermes) -> None:
    bad, good = await pair(hermes, DAMAGES["a partial of the future"])
    found = [(await hermes.session("chat").handle(handle.id)) for handle in (bad, good)]
    tasks = [make_task("chat", id=handle.id) for handle in found] + [make_task("chat")]
    assert await hermes._dispatcher.standing(tasks) == (bad.id, good.id)
