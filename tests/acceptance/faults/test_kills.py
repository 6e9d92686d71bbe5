"""kill -9 at points with a name: inside an agent, and between two steps of the framework."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import pytest

from hermes_async.adapters.redis_store.store import CLAIM, CREATE
from hermes_async.core.hermes import Hermes
from hermes_async.domain.gap import Gap
from hermes_async.domain.task import TaskStatus
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient
from hermes_async.relay.secret import relay_secret
from tests.acceptance.faults.agents import POINTS
from tests.acceptance.faults.messages import is_settled, queue_of
from tests.acceptance.faults.stage import Stage, beginnings
from tests.support.asking import ended, running, told
from tests.support.servers import ROOT, Process, wait_until_async

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(90)]

TWICE = ["queued", "started", "attempt_lost", "started", "completed"]


# -- inside an agent -------------------------------------------------------------------------------------
async def test_a_worker_killed_anywhere_in_an_agent(stage: Stage, hermes: Hermes) -> None:
    for point in POINTS:
        stage.have("async-1", "async-2")
        session = hermes.session(f"kill at {point}")
        handle = await session.dispatch("doomed", point, point)
        task = await ended(handle)
        assert (task.status, task.output, task.attempt, task.losses) == (TaskStatus.COMPLETED, point, 2, 1)
        assert beginnings(stage, handle.id) == [1, 2]
        assert [type_ for type_ in await told(handle) if type_ != "progress"] == TWICE
        children = sorted(await session.tasks(), key=lambda each: each.created_at)[1:]
        assert len(children) == (2 if point == "child" else 0)
        for child, asked_to_stop in zip(children, (True, False), strict=False):  # each attempt had its own
            last = await ended(await hermes.handle(child.id))
            assert last.status is (TaskStatus.CANCELLED if last.cancel_requested else TaskStatus.COMPLETED)
            assert not last.cancel_requested or asked_to_stop


async def test_a_pool_child_killed_by_its_agent_or_from_outside(stage: Stage, hermes: Hermes) -> None:
    session = hermes.session("children")
    by_itself = await session.dispatch("sync_doomed", "self")
    assert ((await ended(by_itself)).output, beginnings(stage, by_itself.id)) == ("self", [1, 2])
    shot = await session.dispatch("sync_work", "shot", seconds=3.0)
    await wait_until_async(lambda: beginnings(stage, shot.id))
    (pid,) = [line.pid for line in stage.ledger.read() if line.what == "began" and line.task == shot.id]
    os.kill(pid, signal.SIGKILL)
    task = await ended(shot)
    assert (task.output, task.attempt, task.losses) == ("shot", 2, 1)
    assert stage.processes["process-1"].alive


async def test_a_prefork_main_killed_takes_its_children_along(stage: Stage, hermes: Hermes) -> None:
    handle = await hermes.session("main").dispatch("sync_work", "main", seconds=3.0)
    await wait_until_async(lambda: beginnings(stage, handle.id))
    stage.kill("process-1")  # waits for the children, too
    stage.start("process-1")
    assert ((await ended(handle)).output, beginnings(stage, handle.id)) == ("main", [1, 2])


# -- between two steps of the framework ------------------------------------------------------------------
@pytest.mark.parametrize("answered", [False, True], ids=["before it", "after it"])
async def test_a_worker_killed_at_its_claim(stage: Stage, hermes: Hermes, answered: bool) -> None:
    with stage.proxy.trap(CLAIM.sha.encode(), answered=answered) as trap:
        handle = await hermes.session("claim").dispatch("work", "claim")
        await wait_until_async(lambda: trap.is_sprung)
        status = TaskStatus.RUNNING if answered else TaskStatus.QUEUED
        await wait_until_async(lambda: _is(hermes, handle.id, status))
        stage.kill("async-1")
    stage.start("async-1")
    task = await ended(handle)
    assert (task.output, task.attempt, task.losses) == ("claim", 1 + answered, int(answered))
    assert beginnings(stage, handle.id) == [1 + answered]  # the body never ran before
    await wait_until_async(lambda: is_settled(stage.server, queue_of("work")))


@pytest.mark.parametrize("answered", [False, True], ids=["before it", "after it"])
async def test_a_worker_killed_when_it_settles(stage: Stage, hermes: Hermes, answered: bool) -> None:
    with stage.proxy.trap(b"task.completed", answered=answered) as trap:
        handle = await hermes.session("settle").dispatch("work", "settle")
        await wait_until_async(lambda: trap.is_sprung)
        status = TaskStatus.COMPLETED if answered else TaskStatus.RUNNING
        await wait_until_async(lambda: _is(hermes, handle.id, status))
        stage.kill("async-1")
    stage.start("async-1")
    task = await ended(handle)
    assert (task.output, task.attempt) == ("settle", 1 if answered else 2)
    await wait_until_async(lambda: is_settled(stage.server, queue_of("work")))  # the message came again
    assert beginnings(stage, handle.id) == ([1] if answered else [1, 2])


@pytest.mark.parametrize("agent", ["work", "sync_work"])
@pytest.mark.parametrize("answered", [False, True], ids=["before it", "after it"])
async def test_a_worker_killed_at_its_ack(stage: Stage, hermes: Hermes, agent: str, answered: bool) -> None:
    worker = "process-1" if agent == "sync_work" else "async-1"
    with stage.proxy.trap(b"XDEL\r\n", answered=answered) as trap:
        handle = await hermes.session("ack").dispatch(agent, "ack")
        assert (await ended(handle)).output == "ack"
        await wait_until_async(lambda: trap.is_sprung)
        stage.kill(worker)
    assert answered or not is_settled(stage.server, queue_of(agent))
    stage.start(worker)
    await wait_until_async(lambda: is_settled(stage.server, queue_of(agent)))
    assert (beginnings(stage, handle.id), (await ended(handle)).attempt) == ([1], 1)


async def _is(hermes: Hermes, task_id: str, status: TaskStatus) -> bool:
    task = await hermes.store.load(task_id)
    return task is not None and task.status is status


# -- parents, janitors, relays ---------------------------------------------------------------------------
PARENT = """
import asyncio, sys
from hermes_async.bootstrap import connect
from hermes_async.settings import Settings

async def main() -> None:
    async with connect(Settings.read()) as hermes:
        handle = await hermes.session("twice").submit("work", {"stamp": "twice"}, idempotency_key=sys.argv[1])
        print("accepted", handle.id, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("answered", [False, True], ids=["before it", "after it"])
async def test_a_parent_killed_before_it_has_read_its_handle(
    stage: Stage, hermes: Hermes, spawn: Callable[..., Process], answered: bool
) -> None:
    command = [sys.executable, "-c", PARENT, f"answered-{answered}"]
    env = {**stage.env, "PYTHONPATH": str(ROOT)}
    known = {task.id for task in await hermes.session("twice").tasks()}
    with stage.proxy.trap(CREATE.sha.encode(), answered=answered) as trap:
        first = spawn(command, env)
        await wait_until_async(lambda: trap.is_sprung)
        await wait_until_async(lambda: _is_there(hermes, known, answered))
        first.kill()
    second = spawn(command, env)  # the next life of the same parent asks again
    second.wait_for_log("accepted")
    (task,) = [each for each in await hermes.session("twice").tasks() if each.id not in known]
    assert task.id in second.log
    assert (await ended(await hermes.handle(task.id))).output == "twice"
    assert beginnings(stage, task.id) == [1]


async def _is_there(hermes: Hermes, known: set[str], expected: bool) -> bool:
    tasks = await hermes.session("twice").tasks()
    return any(task.id not in known for task in tasks) is expected


async def test_a_janitor_killed_at_its_repair(stage: Stage, hermes: Hermes) -> None:
    stage.have("async-1")
    handle = await hermes.session("janitor").dispatch("work", "janitor", seconds=3.0)
    await running(handle)
    stage.kill("async-1")
    with stage.proxy.trap(b"task.attempt_lost", answered=False) as trap:
        stage.start("async-2")
        await wait_until_async(lambda: trap.is_sprung)
        stage.kill("async-2")
    stage.start("async-3")
    task = await ended(handle)
    assert (task.output, task.attempt, task.losses) == ("janitor", 2, 1)
    assert await told(handle) == ["queued", "started", "attempt_lost", "started", *MESSAGES, "completed"]


#: What `work` says in its one whole attempt.
MESSAGES = ["progress", "session.message"]


async def test_a_relay_killed_in_the_middle_of_a_stream(stage: Stage, hermes: Hermes) -> None:
    stage.have("async-1", "relay")
    session = hermes.session("relayed")
    handle = await session.dispatch("work", "relayed", seconds=4.0)
    events = asyncio.create_task(_followed(stage, session.id))
    await running(handle)
    stage.kill("relay")
    others = [await session.dispatch("work", str(n)) for n in range(10)]
    for other in others:
        await ended(other)
    stage.start("relay")
    await ended(handle)
    last = await hermes.store.last_seq(session.id)
    async with asyncio.timeout(15):
        assert await events == list(range(1, last + 1))


async def _followed(stage: Stage, session_id: str) -> list[int]:
    """The numbers that a client of the relay sees until the long task's end."""
    settings = stage.settings
    token = mint(relay_secret(settings), sub="test", sessions=[session_id], ttl=600)
    seen = []
    async with RelayClient(settings.relay_url, token) as client:
        async for event in client.follow(session=session_id):
            assert not isinstance(event, Gap)
            seen.append(event.seq)
            if event.type == "task.completed" and event.data.output == "relayed":
                break
    return seen
