"""What the main process of a worker sees is written, but only of attempts that are its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from hermes_async.domain.errors import QueueUnavailable
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane, Task, TaskStatus
from hermes_async.worker import signals
from hermes_async.worker.signals import (
    Verdict,
    WatchedRequest,
    _write,
    discarded,
    killed,
    lost,
    out_of_time,
    unknown,
)
from tests.support.agents import nap
from tests.support.bench import Bench
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
S = TaskStatus


@pytest.fixture
async def bench() -> Bench:
    return Bench(nap)


async def running(bench: Bench, worker: str = "w1", token: str = "", **options: Any) -> Task:
    task = await bench.dispatch(nap.options(timeout=3.0, **options), 1.0)
    claimed = await bench.store.claim(task.id, worker, 15.0, token)
    assert claimed is not None
    return claimed


async def written(bench: Bench, task: Task, verdict: Verdict, process: int | None = None) -> Task:
    async def opened() -> Any:
        return bench.hermes

    await _write(SimpleNamespace(opened=opened), "w1", task.id, verdict, process)  # type: ignore[arg-type]
    return await bench.record(task)


async def test_the_hard_limit_is_a_timeout(bench: Bench) -> None:
    task = await written(bench, await running(bench), out_of_time)
    assert task.error is not None
    assert (task.status, task.reason) == (S.FAILED, Reason.TIMEOUT)
    assert "3 s" in task.error.message
    retried = await written(bench, await running(bench, retry_limit=1), out_of_time)
    assert (retried.status, retried.failures) == (S.QUEUED, 1)
    assert await written(bench, retried, out_of_time) == retried or retried.status is S.QUEUED


@pytest.mark.parametrize("verdict", [out_of_time, lost, killed, discarded, unknown])
async def test_an_attempt_of_another_worker_is_none_of_our_business(bench: Bench, verdict: Verdict) -> None:
    task = await running(bench, "w2")
    await bench.store.append(make_event(task, "task.cancel_requested"))
    assert (await written(bench, task, verdict)).status is S.RUNNING


@pytest.mark.parametrize("verdict", [out_of_time, lost])
async def test_an_attempt_in_another_child_is_not_the_one_whose_child_died(
    bench: Bench, verdict: Verdict
) -> None:
    task = await running(bench, token="12-7")
    assert (await written(bench, task, verdict, 1)).status is S.RUNNING
    assert (await written(bench, task, verdict, 12)).status is not S.RUNNING


@pytest.mark.parametrize("verdict", [out_of_time, lost, killed, discarded, unknown])
async def test_what_has_ended_has_ended(bench: Bench, verdict: Verdict) -> None:
    task = await running(bench)
    await bench.store.append(make_event(task, "task.completed"))
    assert (await written(bench, task, verdict)).status is S.COMPLETED


async def test_a_dead_child_is_a_loss_at_once(bench: Bench) -> None:
    task = await written(bench, await running(bench), lost)
    assert (task.status, task.losses) == (S.QUEUED, 1)
    assert (await written(bench, task, lost)).losses == 1


async def test_a_kill_cancels_only_what_was_to_be_cancelled(bench: Bench) -> None:
    task = await running(bench)
    assert (await written(bench, task, killed)).status is S.RUNNING
    await bench.store.append(make_event(task, "task.cancel_requested"))
    assert (await written(bench, task, killed)).status is S.CANCELLED


async def test_what_celery_drops_is_cancelled_and_what_it_does_not_know_has_failed(bench: Bench) -> None:
    first, second = await bench.dispatch(nap, 1.0), await bench.dispatch(nap, 1.0)
    assert (await written(bench, first, discarded)).status is S.CANCELLED
    failed = await written(bench, second, unknown)
    assert failed.error is not None
    assert failed.error.type == "UnknownAgent"
    assert "'nap'" in failed.error.message


async def test_what_is_unknown_here_goes_on_to_a_worker_that_knows_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "ON_AFTER", 0.001)
    await bench.store.enlist("newer", Lane.ASYNC, 1, 15.0, ["nap"])
    task = await bench.dispatch(nap, 1.0)
    assert (await written(bench, task, unknown)).status is S.QUEUED
    assert await bench.queue.get() == task.id
    await bench.store.enlist("newer", Lane.ASYNC, 0, 0.0)
    assert (await written(bench, task, unknown)).status is S.FAILED


async def test_a_message_that_was_spent_before_the_claim_is_published_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away for longer than the task may take: Celery has acknowledged what never ran."""
    monkeypatch.setattr(signals, "INSIST_EVERY", 0.001)
    task, publish, faults = (
        await bench.dispatch(nap, 1.0),
        bench.queue.publish_all,
        [QueueUnavailable("away")],
    )

    async def weak(tasks: Sequence[Task]) -> None:
        if faults:
            raise faults.pop()
        await publish(tasks)

    monkeypatch.setattr(bench.queue, "publish_all", weak)
    bench.store.away = 2
    assert (await written(bench, task, out_of_time)).status is S.QUEUED
    assert await bench.queue.get() == task.id


# -- the request -----------------------------------------------------------------------------------------
class Seen:
    """Records what Celery's own request and our notes are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.celery: list[str] = []
        self.notes: list[Verdict] = []
        monkeypatch.setattr(Request, "on_failure", lambda *_, **__: self.celery.append("failure"))
        monkeypatch.setattr(Request, "on_timeout", lambda *_, **__: self.celery.append("timeout"))
        monkeypatch.setattr(signals, "note", lambda _runners, _id, verdict, _: self.notes.append(verdict))
        self.request = WatchedRequest.__new__(WatchedRequest)
        self.runners = SimpleNamespace(is_cut_off=False)
        self.request._app = SimpleNamespace(hermes=self.runners)
        self.request.id = "t1"

    def fail(self, error: BaseException) -> None:
        try:
            raise error
        except BaseException:
            self.request.on_failure(ExceptionInfo())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def test_a_hard_limit_is_noted_once_although_prefork_tells_it_twice(seen: Seen) -> None:
    seen.request.on_timeout(True, 1.0)
    seen.fail(TimeLimitExceeded(2.0))
    seen.request.on_timeout(False, 2.0)
    assert seen.notes == [out_of_time]
    assert seen.celery == ["timeout", "timeout"]


def test_a_dead_child_is_noted_unless_we_are_killing_them(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen.fail(ValueError("no"))
    assert seen.notes == []
    seen.fail(WorkerLostError("gone"))
    assert seen.notes == [lost]
    seen.runners.is_cut_off = True  # its task was given away before
    seen.fail(WorkerLostError("cut off"))
    assert (seen.notes, seen.celery) == ([lost], ["failure"] * 2)
    seen.runners.is_cut_off = False
    monkeypatch.setattr(state, "should_terminate", True)
    seen.fail(WorkerLostError("gone"))
    assert seen.notes == [lost]
    assert seen.celery == ["failure"] * 3
