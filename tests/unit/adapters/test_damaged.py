"""What Redis keeps of one task or session is damaged: that one is passed over, and nobody waits for it."""

from __future__ import annotations

import asyncio

import pytest

from hermes_async.adapters.redis_store import RedisStore, reading
from hermes_async.core.hermes import Hermes
from hermes_async.core.ports import Store
from hermes_async.domain.agent import GateLimits
from hermes_async.domain.errors import StoreDamaged
from hermes_async.domain.events import RetryingData
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import Task
from tests.support.echoing import echo
from tests.support.servers import PATIENCE, wait_until_async
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio


async def command(store: Store, *words: str) -> None:
    """Do to the server what no script of ours does; `%` is the prefix of the session `bad`."""
    assert isinstance(store, RedisStore)
    prefix = store._keys.of_session("bad")
    await store._reads.read(*(word.replace("%", prefix) for word in words))


async def lost(store: Store, session_id: str) -> Task:
    """A task whose worker has died."""
    task = await store.create(make_task(session_id), None, None)
    claimed = await store.claim(task.id, "w1", 0.0)
    assert claimed is not None
    return claimed


async def waiting(store: Store) -> Task:
    """A task whose retry is due."""
    task = await store.create(make_task("later"), None, None)
    claimed = await store.claim(task.id, "w1", 60.0)
    assert claimed is not None
    data = RetryingData(error=ErrorInfo(type="E"), delay=0.001, failures=1)
    assert await store.append(make_event(claimed, "task.retrying", data))
    return claimed


@pytest.mark.parametrize("what", ["started_at", "subagent", "session", "the session"])
async def test_the_janitor_passes_over_a_damaged_task(
    hermes: Hermes, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    store = hermes.store
    bad, good = await lost(store, "bad"), await lost(store, "good")
    later = await waiting(store)
    broken = ("DEL", "%session:bad") if what == "the session" else ("HDEL", f"%task:{bad.id}", what)
    await command(store, *broken)

    async def all_is_mended() -> bool:
        await hermes.janitor.sweep()
        return all(
            [await store.claim(task.id, "w2", 60.0) or await _is_run(store, task) for task in (good, later)]
        )

    await wait_until_async(all_is_mended)
    told = [record for record in caplog.records if record.name == "hermes.janitor"]
    assert f"task {bad.id} cannot be mended: Redis at " in caplog.text
    assert not any(record.exc_info for record in told)


async def _is_run(store: Store, task: Task) -> bool:
    record = await store.load(task.id)
    return record is not None and record.attempt == 2


async def test_a_record_that_is_gone_does_not_stand_before_those_who_wait(redis_url: str) -> None:
    store = RedisStore(redis_url, limits=GateLimits(max_running=1))
    first = await store.create(make_task("first"), None, None)
    gone, behind, last = [
        await store.create(make_task(session), None, None) for session in ("bad", "bad", "last")
    ]
    claimed = await store.claim(first.id, "w1", 60.0)
    assert claimed is not None
    await command(store, "DEL", f"%task:{gone.id}")
    assert await store.append(make_event(claimed, "task.completed"))
    for _ in range(2):
        found = [await store.claim(task.id, "w1", 60.0) for task in (behind, last)]
        [running] = [task for task in found if task]
        assert await store.append(make_event(running, "task.completed"))
    assert (await store.traffic()).waiting == 0
    await store.close()


async def test_an_attempt_whose_end_cannot_be_written_ends(hermes: Hermes) -> None:
    handle = await hermes.session("bad").dispatch(echo, "x")
    await command(hermes.store, "DEL", "%session:bad")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StoreDamaged, match="cannot do this"):
            await hermes.runner("w1", 60.0).run(handle.id)


async def test_news_that_cannot_be_written_do_not_cost_the_result(
    hermes: Hermes, caplog: pytest.LogCaptureFixture
) -> None:
    await hermes.session("bad").dispatch(echo, "x")  # an attempt's news are beyond the first number
    runner = hermes.runner("w1", 60.0)
    handle = await hermes.session("bad").dispatch(echo, "x")
    attempt = await runner.claim(handle.id)
    assert attempt is not None
    await command(hermes.store, "RENAME", "%session:bad", "%aside")
    attempt.context.progress(50, "half")
    await attempt.reporter.close()
    assert f"a task.progress of task {handle.id} cannot be written" in caplog.text
    await command(hermes.store, "RENAME", "%aside", "%session:bad")
    assert await runner.settle(attempt, attempt.returned("x"))
    assert await handle == "x"


async def test_who_follows_a_log_that_cannot_be_read_is_told(
    hermes: Hermes, caplog: pytest.LogCaptureFixture
) -> None:
    session = hermes.session("bad")
    handle = await session.dispatch(echo, "x")
    heard: list[object] = []
    await session.on("*", heard.append)
    await command(hermes.store, "SET", "%events:bad", "no stream")
    readers = [anext(session.events()), handle.result(), anext(session.inbox())]
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(each) for each in found] == [StoreDamaged] * 3
    await wait_until_async(lambda: "handlers of session bad hear nothing any more" in caplog.text)


@pytest.mark.parametrize(
    "damage", [("HDEL", "%task:{id}", "birth"), ("SET", "%task:{id}", "no hash")], ids=["record", "key"]
)
async def test_one_record_that_cannot_be_published_keeps_no_other_waiting(
    hermes: Hermes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: tuple[str, ...]
) -> None:
    monkeypatch.setattr(reading, "_TOLD", set())
    published: list[str] = []

    async def publish_all(tasks: list[Task]) -> None:
        published.extend(task.id for task in tasks)

    monkeypatch.setattr(hermes.journal.queue, "publish_all", publish_all)
    bad, good = [await hermes.journal.create(make_task(name)) for name in ("bad", "good")]
    await command(hermes.store, *(word.format(id=bad.id) for word in damage))
    for round_ in (1, 2):  # it is not confirmed, so the janitor has it sent again
        hermes.journal._publisher.publish([bad.id, good.id])
        await wait_until_async(lambda round_=round_: len(published) == round_)  # type: ignore[misc]
    assert published == [good.id] * 2
    assert caplog.text.count(f"task {bad.id} is left out") == 1
    assert [task.id for task in await hermes.tasks()] == [good.id]
