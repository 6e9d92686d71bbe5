"""Real workers under the gate: families, limits, time limits, fallback, poison, cancels of trees."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import MAX_LOSSES
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.worker.bootsteps import CANCEL_GRACE
from hermes_async.worker.command import worker_command
from tests.support import agents, families
from tests.support.asking import ended, told
from tests.support.rabbitmq import virtual_host
from tests.support.servers import Process, wait_until_async
from tests.support.site import LEASE, Site, gone, site_over, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]
S = TaskStatus


class Crew:
    """Workers of a lane with so many slots each."""

    def __init__(self, site: Site, spawn: Callable[..., Process]) -> None:
        self._site, self._spawn = site, spawn

    async def __call__(self, lane: Lane, slots: int, count: int = 1) -> list[Process]:
        started = [
            self._spawn(worker_command(lane, concurrency=slots), self._site.env, lane) for _ in range(count)
        ]
        for worker in started:
            await until_said(worker, "ready.")
        return started


@pytest.fixture
def crew(site: Site, spawn: Callable[..., Process]) -> Crew:
    return Crew(site, spawn)


async def done(*handles: TaskHandle[Any], timeout: float = 40.0) -> list[Any]:
    async with asyncio.timeout(timeout):
        return list(await asyncio.gather(*handles))


async def nothing_is_held(site: Site) -> bool:
    traffic = await site.hermes.traffic()
    return (sum(traffic.admitted.values()), traffic.waiting) == (0, 0)


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many of them overlapped."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


# -- families --------------------------------------------------------------------------------------------
@pytest.fixture(params=["redis", "redis+list", "amqp"])
def broker(request: pytest.FixtureRequest, redis_url: str) -> Iterator[str]:
    """Each with another way to raise the number of messages that a worker may have."""
    if request.param != "amqp":
        yield redis_url.replace("redis", request.param)
        return
    with virtual_host() as url:
        yield url


@pytest.mark.parametrize(
    ("lane", "agent", "slots"),
    [
        (Lane.ASYNC, families.nest, 1),
        (Lane.ASYNC, families.nest, 2),
        (Lane.PROCESS, families.nest_in_child, 1),
    ],
)
async def test_nesting_is_deeper_than_a_worker_has_slots(
    broker: str,
    redis_url: str,
    tmp_path: Path,
    spawn: Callable[..., Process],
    lane: Lane,
    agent: Any,
    slots: int,
) -> None:
    async with site_over(redis_url, tmp_path, spawn, broker=broker) as site:
        await Crew(site, spawn)(lane, slots)
        handles = [await site.dispatch(agent, 3) for _ in range(2)]
        assert await done(*handles) == [3, 3]
        await wait_until_async(lambda: nothing_is_held(site))


async def test_there_are_threads_for_the_children_of_many_that_wait_in_threads(
    site: Site, crew: Crew
) -> None:
    await crew(Lane.ASYNC, 60)
    handles = await site.session.dispatch_many(families.nest_in_thread, [{"depth": 1}] * 60)
    assert await done(*handles) == [1] * 60


async def test_a_pool_of_processes_is_after_nesting_as_it_was_before(site: Site, crew: Crew) -> None:
    (worker,) = await crew(Lane.PROCESS, 1)
    began = time.monotonic()
    assert await done(await site.dispatch(families.nest_in_child, 4)) == [4]
    assert time.monotonic() - began < 15  # four times, Celery's timers would take 20 s
    main = psutil.Process(worker.pid)
    await wait_until_async(lambda: len(main.children()) == 1, 20)  # as many as before
    values = await done(*[await site.dispatch(families.timed_in_child, 0.3) for _ in range(4)])
    assert most_at_once(values) == 1  # and as many slots


async def test_a_process_that_dies_while_it_waits_for_its_child_takes_nothing_along(
    site: Site, crew: Crew
) -> None:
    (worker,) = await crew(Lane.PROCESS, 1)
    main = psutil.Process(worker.pid)
    (first,) = main.children()
    top = await site.dispatch(families.nest_in_child, 1, 7.0)  # Celery looks for the dead every 5 s
    await wait_until_async(lambda: run(site, "nest_in_child", 2), 30)
    first.kill()
    task = await ended(top, timeout=40)
    assert (task.output, task.losses, task.attempt) == (1, 1, 2)
    await wait_until_async(lambda: nothing_is_held(site), 20)
    found = {task.birth.parent_attempt: task.status for task in await site.hermes.tasks()}
    assert found == {0: S.COMPLETED, 1: S.CANCELLED, 2: S.COMPLETED}  # who lost its parent was asked to stop
    await wait_until_async(lambda: len(main.children()) == 1, 20)
    values = await done(*[await site.dispatch(families.timed_in_child, 0.2) for _ in range(4)])
    assert most_at_once(values) == 1


@pytest.mark.parametrize(
    ("lane", "agent", "child"),
    [(Lane.ASYNC, families.clan, "timed_in_child"), (Lane.PROCESS, families.elder, "timed")],
)
async def test_a_warm_stop_does_not_wait_for_children_that_nobody_can_begin(
    site: Site, crew: Crew, lane: Lane, agent: Any, child: str
) -> None:
    (worker,) = await crew(lane, 4)
    handle = await site.dispatch(agent, 1, 0.1)
    await wait_until_async(lambda: run(site, agent.name, 3), 30)
    await wait_until_async(lambda: run(site, child, 2, S.QUEUED), 30)
    worker.signal(signal.SIGTERM)
    assert await gone(worker, 30) == 0
    assert "Traceback" not in worker.log
    task = await handle.task()
    assert (task.status, task.attempt, task.losses) == (S.QUEUED, 1, 0)
    assert {each.status for each in await site.hermes.tasks() if each.id != task.id} == {S.CANCELLED}
    await crew(Lane.ASYNC, 4)
    await crew(Lane.PROCESS, 4)
    task = await ended(handle, timeout=40)
    assert (task.status, task.attempt) == (S.COMPLETED, 2)
    assert (await told(handle))[1:4] == ["started", "attempt_lost", "started"]


async def test_a_process_that_begins_to_wait_while_its_worker_stops_goes_on_elsewhere(
    site: Site, crew: Crew
) -> None:
    (worker,) = await crew(Lane.PROCESS, 1)
    handle = await site.dispatch(families.elder, 0, 0.1, 2.0)
    await wait_until_async(lambda: run(site, "elder", 1), 30)
    worker.signal(signal.SIGTERM)
    assert await gone(worker, 30) == 0
    task = await handle.task()
    assert (task.status, task.attempt, task.losses) == (S.QUEUED, 1, 0)


async def test_a_cancel_frees_the_processes_of_a_family(site: Site, crew: Crew) -> None:
    await crew(Lane.PROCESS, 1)
    top = await site.dispatch(families.nest_in_child, 2, 60.0)
    await wait_until_async(lambda: run(site, "nest_in_child", 3), 30)
    assert await top.cancel()
    assert (await ended(top)).status is S.CANCELLED
    await wait_until_async(lambda: all_are_cancelled(site, 3), 20)
    await wait_until_async(lambda: nothing_is_held(site))
    assert await done(await site.dispatch(agents.sync_echo, "x")) == ["x"]


async def run(site: Site, agent: str, count: int, status: TaskStatus = S.RUNNING) -> bool:
    """Whether so many of an agent's tasks run, or are in another status."""
    return len(await site.hermes.tasks(agent=agent, status=status)) == count


async def all_are_cancelled(site: Site, count: int) -> bool:
    """Whether there are so many tasks, and each has ended so; who is aside holds nothing and may not have."""
    return [task.status for task in await site.hermes.tasks(limit=100)] == [S.CANCELLED] * count


async def waits(site: Site, agent: str, count: int) -> bool:
    """Whether so many of an agent's tasks wait."""
    return len(await site.hermes.tasks(agent=agent, status=S.QUEUED)) == count


async def test_a_cancel_stops_a_tree_across_workers_and_lanes(site: Site, crew: Crew) -> None:
    await crew(Lane.ASYNC, 50, count=2)
    await crew(Lane.PROCESS, 1)
    top = await site.dispatch(families.clan, 2, 60.0)
    await wait_until_async(lambda: run(site, "clan", 7), 20)
    await wait_until_async(lambda: run(site, "timed_in_child", 1), 20)
    await wait_until_async(lambda: waits(site, "timed_in_child", 3), 20)  # there is one process
    waiting = await site.hermes.tasks(agent="timed_in_child", status=S.QUEUED)
    assert await top.cancel()
    assert (await ended(top)).status is S.CANCELLED
    await wait_until_async(lambda: all_are_cancelled(site, 7 + 4), 20)
    await wait_until_async(lambda: nothing_is_held(site), 20)
    for task in waiting:
        assert await told(await site.hermes.handle(task.id)) == ["queued", "cancel_requested", "cancelled"]


# -- limits ----------------------------------------------------------------------------------------------
LIMITS = """
agents:
  boss:
    type: conversational
    subagents:
      - {id: timed, agent: timed, concurrency_limit: 3}
      - {id: rare, agent: timed_in_child}
  timed: {run: "tests.support.families:timed"}
  timed_in_child: {run: "tests.support.families:timed_in_child", concurrency_limit: 2}
"""


async def test_limits_hold_by_the_agents_own_clocks(
    redis_url: str, tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    async with site_over(redis_url, tmp_path, spawn, config=LIMITS) as site:
        crew = Crew(site, spawn)
        await crew(Lane.ASYNC, 50, count=2)
        await crew(Lane.PROCESS, 4)
        spans: dict[str, Any] = {}
        for name in ("a", "b"):
            session = site.hermes.session(name, parent="boss")
            spans[name] = await session.dispatch_many("timed", [{"seconds": 0.2}] * 12)
            spans[f"{name} rare"] = await session.dispatch_many("rare", [{"seconds": 0.2}] * 6)
        values = {name: await done(*handles) for name, handles in spans.items()}
        assert [most_at_once(values[name]) for name in ("a", "b")] == [3, 3]
        assert most_at_once([*values["a rare"], *values["b rare"]]) == 2  # over all sessions
        assert [task.attempt for task in await site.hermes.tasks(limit=100)] == [1] * 36
        await wait_until_async(lambda: nothing_is_held(site))


# -- time ------------------------------------------------------------------------------------------------
async def test_idle_and_total_time_in_the_process_lane_strike_nobody_else(site: Site, crew: Crew) -> None:
    await crew(Lane.PROCESS, 1)  # so that each task has the process of the one before
    idle = await site.dispatch(families.hush.options(idle_timeout=0.5), 30.0)
    innocent = [await site.dispatch(agents.sync_nap, 0.3) for _ in range(2)]
    total = await site.dispatch(families.hush.options(total_timeout=6.0), 30.0)
    alive = await site.dispatch(families.chat.options(idle_timeout=1.0), 20)
    task = await ended(idle)
    assert task.error is not None
    assert (task.status, task.reason, task.partials) == (S.FAILED, Reason.IDLE_TIMEOUT, {"output": "a word"})
    assert task.error.message == "no sign of life for 0.5 s"
    task = await ended(total)
    assert (task.status, task.reason, task.partials) == (S.FAILED, Reason.TOTAL_TIMEOUT, {"output": "a word"})
    for handle in innocent:
        assert ((await ended(handle)).status, (await handle.task()).attempt) == (S.COMPLETED, 1)
    assert (await ended(alive)).output == "done"


async def test_limits_that_strike_at_the_very_end_hit_no_other_task(site: Site, crew: Crew) -> None:
    await crew(Lane.PROCESS, 1)
    handles = [await site.dispatch(families.hush.options(idle_timeout=0.1), 0.1) for _ in range(40)]
    handles += [await site.dispatch(agents.sync_nap, 0.05) for _ in range(5)]
    for handle in handles:
        task = await ended(handle, timeout=60)
        assert task.status is S.COMPLETED or task.reason is Reason.IDLE_TIMEOUT, task
        assert task.attempt == 1
    assert [(await handle.task()).status for handle in handles[40:]] == [S.COMPLETED] * 5


async def test_who_waits_for_its_child_is_not_idle_in_the_process_lane(site: Site, crew: Crew) -> None:
    await crew(Lane.PROCESS, 1)
    patient = families.nest_in_child.options(idle_timeout=0.7)
    assert await done(await site.dispatch(patient, 1, 2.5)) == [1]
    idle = await ended(await site.dispatch(patient, 0, 30.0))
    assert (idle.status, idle.reason) == (S.FAILED, Reason.IDLE_TIMEOUT)


async def test_a_def_without_a_timeout_can_be_cancelled(site: Site, crew: Crew) -> None:
    await crew(Lane.PROCESS, 1)
    handle = await site.dispatch(agents.sync_nap.options(timeout=None), 60.0)
    await site.running(handle)
    assert await handle.cancel()
    assert (await ended(handle)).status is S.CANCELLED
    assert await told(handle) == ["queued", "started", "cancel_requested", "session.message", "cancelled"]


@pytest.mark.parametrize(
    ("lane", "stubborn", "after"),
    [(Lane.ASYNC, agents.stubborn, agents.echo), (Lane.PROCESS, agents.sync_stubborn, agents.sync_echo)],
)
async def test_who_does_not_heed_its_cancel_is_settled_and_killed_after_the_grace(
    site: Site, crew: Crew, lane: Lane, stubborn: Any, after: Any
) -> None:
    (worker,) = await crew(lane, 1)
    handle = await site.dispatch(stubborn, 300.0)
    await site.running(handle)
    asked = time.monotonic()
    assert await handle.cancel()
    assert (await ended(handle, timeout=CANCEL_GRACE + 15)).status is S.CANCELLED
    assert time.monotonic() - asked >= CANCEL_GRACE - 1
    await until_said(worker, f"did not end within {CANCEL_GRACE:g} s of its cancel")
    assert await done(await site.dispatch(after, "x")) == ["x"]  # its slot is free


async def test_who_takes_longer_than_its_lease_to_clean_up_may(site: Site, crew: Crew) -> None:
    await crew(Lane.ASYNC, 1)
    handle = await site.dispatch(families.tidy, 2 * LEASE)
    await site.running(handle)
    assert await handle.cancel()
    assert (await ended(handle)).status is S.CANCELLED
    assert await told(handle) == ["queued", "started", "cancel_requested", "session.message", "cancelled"]


# -- other lanes -----------------------------------------------------------------------------------------
async def test_the_other_lane_takes_over_when_an_agent_fails(site: Site, crew: Crew) -> None:
    await crew(Lane.ASYNC, 5)
    await crew(Lane.PROCESS, 1)
    handle = await site.dispatch(families.hopeless, 7)
    task = await ended(handle)
    assert (task.output, task.agent, task.birth.subagent) == ([7, 3], "rescue", "hopeless")
    assert await told(handle) == ["queued", *["started", "retrying"] * 2, "started", "completed"]


async def test_poison_is_told_apart_from_its_neighbours(site: Site, crew: Crew) -> None:
    workers = await crew(Lane.ASYNC, 20, count=2)
    (processes,) = await crew(Lane.PROCESS, 2)
    innocents = [await site.dispatch(agents.nap, 2.0) for _ in range(10)]
    bad = await site.dispatch(families.poison)

    async def restart_the_dead() -> None:
        while True:
            if not all(worker.alive for worker in workers):
                workers[:] = [worker for worker in workers if worker.alive]
                workers.extend(await crew(Lane.ASYNC, 20, count=2 - len(workers)))
            await asyncio.sleep(0.1)

    keeper = asyncio.create_task(restart_the_dead())
    try:
        task = await ended(bad, timeout=90)
        records = [await ended(handle, timeout=60) for handle in innocents]
    finally:
        keeper.cancel()
    assert (task.status, task.reason, task.losses, task.attempt) == (
        S.FAILED,
        Reason.WORKER_LOST,
        MAX_LOSSES - 1,
        MAX_LOSSES,
    )
    assert task.lane is Lane.PROCESS
    assert [record.status for record in records] == [S.COMPLETED] * 10
    assert max(record.losses for record in records) < MAX_LOSSES
    assert processes.alive
    await wait_until_async(lambda: nothing_is_held(site))
