"""Real workers whose tasks ask: killed, stopped and cancelled while they wait and after the answer."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.errors import NotTaken
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.worker.command import worker_command
from tests.support import agents, askers
from tests.support.asking import ended, running, told
from tests.support.servers import Process, wait_until_async
from tests.support.site import LEASE, RECOVERY, Site, gone, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]
S = TaskStatus

LANES = [
    pytest.param(Lane.ASYNC, askers.asker, id="async"),
    pytest.param(Lane.PROCESS, askers.asker_in_child, id="process"),
    pytest.param(Lane.PROCESS, askers.sync_asker, id="def"),
]
in_all_ways = pytest.mark.parametrize(("lane", "agent"), LANES)


async def asks(*handles: TaskHandle[Any], attempt: int = 1, question: str = "number 0?") -> None:
    """Wait until all ask this, in this attempt."""

    async def do() -> bool:
        tasks = [await handle.task() for handle in handles]
        return all(
            task.status is S.INPUT_REQUIRED
            and task.attempt == attempt
            and task.question is not None
            and task.question.question == question
            for task in tasks
        )

    await wait_until_async(do, 30)


async def nothing_is_held(site: Site) -> bool:
    traffic = await site.hermes.traffic()
    return (sum(traffic.admitted.values()), traffic.waiting) == (0, 0)


async def inbox(site: Site) -> list[str]:
    return [delivery.event.type.removeprefix("task.") for delivery in await site.session.pending()]


@in_all_ways
async def test_more_ask_than_there_are_slots(
    site: Site, spawn: Callable[..., Process], lane: Lane, agent: Any
) -> None:
    worker = spawn(worker_command(lane, concurrency=1), site.env, lane)
    await until_said(worker, "ready.")
    handles = [await site.dispatch(agent, 2) for _ in range(4)]
    await asks(*handles)
    assert sorted(await inbox(site)) == ["input_required"] * 4
    for number, handle in enumerate(handles):
        await handle.answer(number)
        await asks(handle, question="number 1?")
        await handle.answer("x")
    results = [await asyncio.wait_for(handle, 20) for handle in handles]
    assert results == [[n, "x", 1] for n in range(4)]
    assert await inbox(site) == ["completed"] * 4
    await wait_until_async(lambda: nothing_is_held(site))
    if lane is Lane.PROCESS:
        await wait_until_async(lambda: len(psutil.Process(worker.pid).children()) == 1, 20)


@in_all_ways
async def test_a_worker_that_is_killed_while_its_task_waits(site: Site, lane: Lane, agent: Any) -> None:
    (worker,) = await site.workers(lane, size=1)
    handle = await site.dispatch(agent)
    await asks(handle)
    first = (await handle.task()).question
    worker.kill()
    await site.workers(lane, size=1)
    await asks(handle, attempt=2)
    task = await handle.task()
    assert task.question == first
    assert await inbox(site) == ["input_required"]
    assert await handle.answer("yes")
    assert await asyncio.wait_for(handle, 20) == ["yes", 2]
    assert (await told(handle)).count("input_required") == 2


@in_all_ways
async def test_a_worker_that_is_killed_after_the_answer(site: Site, lane: Lane, agent: Any) -> None:
    (worker,) = await site.workers(lane, size=1)
    handle = await site.dispatch(agent, 1, 60.0)
    await asks(handle)
    await handle.answer("yes")
    await running(handle)
    worker.kill()
    await site.workers(lane, size=1)
    task = await ended(handle)
    assert (task.output, task.losses) == (["yes", 2], 1)
    assert (await told(handle)).count("input_required") == 1


async def test_an_answer_between_two_attempts_is_kept(site: Site) -> None:
    (worker,) = await site.workers(Lane.ASYNC)
    handle = await site.dispatch(askers.asker)
    await asks(handle)
    worker.kill()
    other = site.hermes
    await asyncio.sleep(LEASE)
    while not (await other.janitor.sweep()).lost:
        await asyncio.sleep(0.05)
    assert (await handle.task()).status is S.QUEUED
    assert await handle.answer("meanwhile")
    with pytest.raises(NotTaken, match="asks nothing now; it is queued"):
        await handle.answer("late")
    assert await inbox(site) == []
    await site.workers(Lane.ASYNC)
    assert await asyncio.wait_for(handle, 20) == ["meanwhile", 2]
    assert [word for word in await told(handle) if word in ("answered", "input_required", "resumed")] == [
        "input_required",
        "answered",
    ]


@in_all_ways
async def test_a_child_or_worker_that_stops_hands_back_who_waits(site: Site, lane: Lane, agent: Any) -> None:
    (worker,) = await site.workers(lane, size=2)
    handles = [await site.dispatch(agent) for _ in range(3)]
    await asks(*handles)
    worker.signal(signal.SIGTERM)
    assert await gone(worker) == 0
    tasks = [await handle.task() for handle in handles]
    assert {(task.status, task.losses) for task in tasks} == {(S.QUEUED, 0)}
    assert all(task.question for task in tasks)
    await handles[0].answer("meanwhile")
    await site.workers(lane, size=2)
    await asks(*handles[1:], attempt=2)
    for handle in handles[1:]:
        await handle.answer("yes")
    assert [(await ended(handle)).output for handle in handles] == [["meanwhile", 2], ["yes", 2], ["yes", 2]]


@pytest.mark.parametrize("lane", Lane)
async def test_a_worker_that_stops_at_once_hands_back_who_waits(site: Site, lane: Lane) -> None:
    agent = askers.asker if lane is Lane.ASYNC else askers.asker_in_child
    (worker,) = await site.workers(lane)
    handle = await site.dispatch(agent)
    await asks(handle)
    worker.signal(signal.SIGQUIT)
    await gone(worker)
    task = await handle.task()
    assert (task.status, task.losses, task.question is not None) == (S.QUEUED, 0, True)
    await site.workers(lane)
    await asks(handle, attempt=2)
    await handle.answer(1)
    assert (await ended(handle)).output == [1, 2]
    assert "resumed" not in (await told(handle))[: (await told(handle)).index("attempt_lost")]


async def test_a_task_that_asks_while_its_worker_stops_goes_on_elsewhere(site: Site) -> None:
    (worker,) = await site.workers(Lane.ASYNC)
    handle = await site.dispatch(askers.asker, 2)
    await asks(handle)
    late = await site.dispatch(agents.nap, 3.0)  # keeps the worker from ending
    await running(late)
    await handle.answer("one")
    await asks(handle, question="number 1?")
    worker.signal(signal.SIGTERM)
    assert await gone(worker, 30) == 0
    assert (await ended(late)).status is S.COMPLETED
    await site.workers(Lane.ASYNC)
    await asks(handle, attempt=2, question="number 1?")
    await handle.answer("two")
    assert (await ended(handle)).output == ["one", "two", 2]


@in_all_ways
@pytest.mark.parametrize("force", [False, True])
async def test_a_cancel_ends_who_waits(site: Site, lane: Lane, agent: Any, force: bool) -> None:
    await site.workers(lane, size=1)
    handle = await site.dispatch(agent)
    await asks(handle)
    await handle.cancel(force=force)
    task = await ended(handle, 20)
    assert (task.status, task.question) == (S.CANCELLED, None)
    assert await inbox(site) == ["cancelled"]
    await wait_until_async(lambda: nothing_is_held(site))
    again = await site.dispatch(agent)
    await asks(again)
    await again.answer(1)
    assert (await ended(again)).output == [1, 1]


@in_all_ways
async def test_its_own_limit_stands_still_and_that_of_its_life_does_not(
    site: Site, lane: Lane, agent: Any
) -> None:
    await site.workers(lane, size=2)
    patient = await site.dispatch(agent.options(timeout=1.0))
    hasty = await site.dispatch(agent.options(total_timeout=3.0))
    slow = await site.dispatch(agent.options(timeout=1.0), 1, 30.0)
    await asks(patient, slow)
    task = await ended(hasty, 20)
    assert (task.status, task.reason) == (S.FAILED, Reason.TOTAL_TIMEOUT)
    await asyncio.sleep(1.0)
    await asks(patient, slow)
    began = time.monotonic()
    await slow.answer("x")
    await patient.answer("yes")
    assert (await ended(patient)).output == ["yes", 1]
    task = await ended(slow)
    assert (task.status, task.reason) == (S.FAILED, Reason.TIMEOUT)
    assert time.monotonic() - began < 9  # the pool would kill it after 11 s
    assert "input_required" not in await inbox(site)


async def test_a_child_that_dies_while_it_waits_is_lost_at_once(site: Site) -> None:
    (worker,) = await site.workers(Lane.PROCESS, size=1)
    handle = await site.dispatch(askers.sync_asker)
    await asks(handle)
    for child in psutil.Process(worker.pid).children():
        child.kill()
    await asks(handle, attempt=2)
    assert (await handle.task()).losses == 1
    await handle.answer(1)
    assert (await ended(handle)).output == [1, 2]


async def test_a_stopped_worker_s_question_is_asked_by_another(site: Site) -> None:
    """It is frozen, wakes up when the answer is long there, and has nothing to say any more."""
    (worker,) = await site.workers(Lane.ASYNC)
    handle = await site.dispatch(askers.asker)
    await asks(handle)
    worker.signal(signal.SIGSTOP)
    await site.workers(Lane.ASYNC)
    await asks(handle, attempt=2)
    await handle.answer("yes")
    task = await ended(handle, RECOVERY + 10)
    worker.signal(signal.SIGCONT)
    assert (task.output, task.attempt) == (["yes", 2], 2)
    await wait_until_async(lambda: nothing_is_held(site))
    assert await asyncio.wait_for(await site.dispatch(agents.echo, "x"), 20) == "x"


async def test_messages_survive_the_worker(site: Site) -> None:
    (worker,) = await site.workers(Lane.ASYNC)
    handle = await site.dispatch(askers.listener, 3)
    await handle.send("die")
    await wait_until_async(lambda: not worker.alive, 20)
    await handle.send("between")
    await site.workers(Lane.ASYNC)
    await running(handle, attempt=2)
    await handle.send("after")
    assert (await ended(handle)).output == ["die in 2", "between in 2", "after in 2"]
    assert (await told(handle)).count("message_applied") == 4


def cli(site: Site, spawn: Callable[..., Process], *args: str) -> Process:
    return spawn([sys.executable, "-m", "hermes_async.cli", *args], site.env, "cli")


async def test_the_command_line_answers_and_says(site: Site, spawn: Callable[..., Process]) -> None:
    await site.workers(Lane.ASYNC)
    handle = await site.dispatch(askers.asker)
    await asks(handle)
    status = cli(site, spawn, "task", "status", handle.id)
    assert (await gone(status), "number 0?" in status.log) == (0, True)
    assert "hermes-async task answer" in status.log
    answer = cli(site, spawn, "--json", "task", "answer", handle.id, "--json-value", '{"a": [1]}')
    assert await gone(answer) == 0
    assert json.loads(answer.log)["answered"] is True
    assert (await ended(handle)).output == [{"a": [1]}, 1]
    late = cli(site, spawn, "task", "answer", handle.id, "late")
    assert (await gone(late), "has ended: it is completed" in late.log) == (6, True)
