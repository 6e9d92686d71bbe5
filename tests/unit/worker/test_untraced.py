"""Tasks that bring a coroutine of their own: Celery's tracer stays out of the way while nobody looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import current_task, signals
from celery.app import trace
from celery.exceptions import Ignore, Retry
from greenlet import getcurrent

from hermes_async.worker.greenlets import Tracer
from tests.support.servers import wait_until
from tests.unit.worker.conftest import Bench

BODIES: list[Callable[..., Any]] = []
ERRORS = {"ValueError": ValueError("no"), "Retry": Retry("later"), "Ignore": Ignore("not mine")}
ran: list[str] = []


async def work() -> str:
    """What Celery finds as the task's body."""
    ran.append("body")
    return "traced"


async def untraced(task_id: str) -> str:
    ran.append("greenlet" if isinstance(getcurrent(), Tracer) else "plain")
    await asyncio.sleep(0)
    return f"plain {task_id}"


@pytest.fixture
def task(bench: Bench) -> Any:
    ran.clear()
    bench.add(work)
    task = bench.app.tasks["work"]
    task.untraced = untraced
    return task


@contextmanager
def heard(*names: str) -> Iterator[list[str]]:
    """What signals of these names are sent."""
    order: list[str] = []
    receivers = {name: lambda name=name, **_: order.append(name) for name in names}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    try:
        yield order
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


def test_it_runs_without_the_tracer_and_is_told_alike(
    bench: Bench, task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, trace.logger.name):
        outcome = bench.result(work)
    assert outcome.value == repr(f"plain {outcome.task_id}")
    assert outcome.events == ["accepted", "succeeded"]
    assert ran == ["plain"]
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == [
        f"Task work[{outcome.task_id}] succeeded"
    ]


@pytest.mark.parametrize("name", ERRORS)
def test_what_it_raises_goes_through_celery_and_does_not_run_again(
    bench: Bench, task: Any, name: str
) -> None:
    async def fail(task_id: str) -> None:
        ran.append("plain")
        raise ERRORS[name]

    task.untraced = fail
    with heard("task_failure", "task_retry") as order:
        outcome = bench.result(work)
    assert isinstance(outcome.error, type(ERRORS[name]))
    assert outcome.events == ["accepted", "failed"]
    assert order == {"ValueError": ["task_failure"], "Retry": ["task_retry"], "Ignore": []}[name]
    assert ran == ["plain"]


def test_its_limits_and_its_end_from_outside_are_those_of_every_task(bench: Bench, task: Any) -> None:
    async def linger(task_id: str) -> None:
        await asyncio.sleep(30)

    task.untraced = linger
    assert bench.result(work, timeout=0.05).events == ["accepted", "hard"]
    assert bench.result(work, soft_timeout=0.05).events == ["accepted", "soft", "failed"]


@pytest.mark.parametrize("name", ["task_prerun", "task_postrun", "task_success"])
def test_whoever_listens_sees_it_traced(bench: Bench, task: Any, name: str) -> None:
    with heard(name) as order:
        assert bench.result(work).value == "'traced'"
    assert (order, ran) == ([name], ["body"])


def test_whoever_has_wrapped_the_tracer_sees_it_traced(bench: Bench, task: Any) -> None:
    def wrapped(*args: Any) -> Any:
        return plain(*args)

    assert bench.result(work).value != "'traced'"
    plain = task.__trace__
    wrapped.__wrapped__ = plain  # type: ignore[attr-defined]
    task.__trace__ = wrapped
    assert bench.result(work).value == "'traced'"


def test_whoever_has_hooked_into_the_task_sees_it_traced(bench: Bench) -> None:
    class Hooked(bench.app.Task):  # type: ignore[misc, name-defined]
        def before_start(self, *_: Any) -> None:
            ran.append("hook")

    ran.clear()
    bench.add(work, base=Hooked)
    bench.app.tasks["work"].untraced = untraced
    assert bench.result(work).value == "'traced'"
    assert ran == ["hook", "body"]


def test_it_has_the_current_task_as_a_traced_one_has(bench: Bench, task: Any) -> None:
    async def here() -> list[str]:
        return [current_task.name, current_task.request.id, task.request.id]

    async def who(task_id: str) -> list[list[str]]:
        await asyncio.sleep(0.01)
        return [[task_id], *await asyncio.gather(here(), here()), await here()]

    task.untraced = who
    outcomes = [bench.run(work) for _ in range(3)]
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    for [[task_id], *found] in [eval(outcome.value) for outcome in outcomes]:
        assert found == [["work", task_id, task_id]] * 3
    assert not current_task
    assert task.request.id is None
