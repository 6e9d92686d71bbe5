"""A worker sees to all its tasks, although this version cannot read the record of one of them."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from celery.worker import state

from hermes_async.core.hermes import Hermes
from hermes_async.domain.question import Question
from hermes_async.domain.task import Lane, Task, TaskStatus
from hermes_async.worker import bootsteps, signals
from hermes_async.worker.bootsteps import LeaseKeeper, _hand_back, _release_now, _release_parents
from tests.support.damage import DAMAGES, damage, raw
from tests.support.values import make_task

pytestmark = pytest.mark.anyio

LEASE = 60.0
CUT_OFF = DAMAGES["cut off"]


@pytest.fixture(autouse=True)
def _no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("active_requests", "reserved_requests"):
        monkeypatch.setattr(state, name, WeakSet())


class Request:
    """Celery's, as far as it matters here."""

    worker_pid = 1

    def __init__(self, task_id: str) -> None:
        self.id = task_id
        state.active_requests.add(self)


def station(hermes: Hermes) -> Any:
    async def opened() -> Hermes:
        return hermes

    return SimpleNamespace(opened=opened)


async def claimed(hermes: Hermes, worker: str = "w1") -> Task:
    task = await hermes.store.create(make_task("chat"), None, None)
    found = await hermes.store.claim(task.id, worker, LEASE)
    assert found is not None
    return found


async def statuses(hermes: Hermes, *tasks: Task) -> list[str | None]:
    return [status for task in tasks for status in await raw(hermes.store, task.id, "status")]


async def test_others_are_renewed_stopped_and_cancelled(
    hermes: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, bad, lost, unwanted = [await claimed(hermes, worker) for worker in ("w1", "w2", "w2", "w1")]
    spoilt = await claimed(hermes)
    for task in (bad, spoilt):
        await damage(hermes.store, task.id, CUT_OFF)
    for task in (unwanted, spoilt):
        await hermes.store.cancel(task.id, force=False, cascade=True)
    requests = [Request(task.id) for task in (ours, bad, lost, unwanted, spoilt)]
    ended: list[tuple[str, str]] = []

    def end(requests: list[Any], signal: str) -> None:
        ended.extend((request.id, signal) for request in requests)

    keeper = LeaseKeeper(hermes, "w1", LEASE, end, {})
    await keeper.renew()
    assert set(ended) == {(unwanted.id, "SIGUSR1"), (spoilt.id, "SIGUSR1")}
    ended.clear()
    monkeypatch.setattr(bootsteps, "CANCEL_GRACE", 0.0)
    await keeper.renew()
    assert set(ended) == {
        (lost.id, "SIGUSR1"),
        (bad.id, "SIGUSR1"),
        (unwanted.id, "SIGKILL"),
        (spoilt.id, "SIGKILL"),
    }
    assert await statuses(hermes, ours, unwanted, spoilt) == ["running", "cancelled", "cancelled"]
    assert len(requests) == 5


async def test_others_are_handed_back(hermes: Hermes) -> None:
    bad, asking, running = [await claimed(hermes) for _ in range(3)]
    await hermes.store.ask(asking, Question(question_id="1", question="which?", answer_schema={}))
    await damage(hermes.store, bad.id, CUT_OFF)
    requests = [Request(task.id) for task in (bad, asking, running)]
    await _release_now(station(hermes), "w1")
    assert await statuses(hermes, bad, asking, running) == ["running", "queued", "running"]
    await _hand_back(station(hermes), "w1")
    assert await statuses(hermes, bad, running) == ["running", "queued"]
    assert len(requests) == 3


async def test_a_parent_of_a_child_that_nobody_can_begin_is_released(hermes: Hermes) -> None:
    bad, parent = [await claimed(hermes) for _ in range(2)]
    children = [make_task("chat", parent_task_id=parent.id, parent_attempt=1) for _ in range(2)]
    for child in children:
        await hermes.store.create(child, None, None)
    for task_id in (bad.id, children[0].id):
        await damage(hermes.store, task_id, CUT_OFF)
    requests = [Request(task.id) for task in (bad, parent)]
    await hermes.store.enlist("w1", Lane.ASYNC, 0, 0.0)
    await _release_parents(station(hermes), "w1", SimpleNamespace(pids_aside={1}))
    assert await statuses(hermes, bad, parent) == ["running", "queued"]
    assert len(requests) == 2


async def test_what_celery_tells_of_it_is_written(hermes: Hermes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "hermes.worker")
    killed, waiting = await claimed(hermes), await hermes.store.create(make_task("chat"), None, None)
    for task in (killed, waiting):
        await damage(hermes.store, task.id, CUT_OFF)
    await signals._write(station(hermes), "w1", killed.id, signals.lost)
    await signals._write(station(hermes), "w1", waiting.id, signals.unknown)
    assert await statuses(hermes, killed, waiting) == ["queued", TaskStatus.FAILED]
    assert "cannot be written" not in caplog.text
