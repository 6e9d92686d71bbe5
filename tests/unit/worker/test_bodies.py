"""The bodies of the Celery tasks, and the runners that a worker process opens for them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import Ignore, Retry

from hermes_async.bootstrap import Servers
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.core.tracing import Untraced
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.sdk import TaskContext
from hermes_async.settings import Settings
from hermes_async.worker import bodies
from hermes_async.worker.bodies import AgentFailed, Runners, run_here, told
from tests.support import agents
from tests.support.servers import wait_until
from tests.support.values import make_event, make_task

S = TaskStatus


# -- what Celery is told ---------------------------------------------------------------------------------
def ended(type_: str) -> AnyEvent:
    return make_event(make_task(status=S.RUNNING, attempt=1), type_)


def test_celery_is_told_what_the_record_says() -> None:
    assert told(ended("task.completed")) == "completed"
    with pytest.raises(AgentFailed, match="ValueError: no ❄"):
        told(ended("task.failed"))
    with pytest.raises(Retry, match="ValueError: no ❄"):
        told(ended("task.retrying"))


@pytest.mark.parametrize("type_", ["task.failed", "task.retrying"])
def test_each_failed_attempt_is_logged(type_: str, caplog: pytest.LogCaptureFixture) -> None:
    with suppress(AgentFailed, Retry):
        told(ended(type_))
    (record,) = caplog.records
    assert (record.levelname, "ValueError: no ❄" in record.getMessage()) == ("WARNING", True)


def test_an_attempt_that_ends_well_is_not(caplog: pytest.LogCaptureFixture) -> None:
    told(ended("task.completed"))
    assert caplog.records == []


@pytest.mark.parametrize("event", [None, ended("task.cancelled"), ended("task.attempt_lost")])
def test_celery_ignores_what_has_no_result_here(event: AnyEvent | None) -> None:
    with pytest.raises(Ignore):
        told(event)


# -- the process lane ------------------------------------------------------------------------------------
class Here:
    """Runs tasks as a prefork child does, but in this process."""

    def __init__(self, runners: Runners) -> None:
        self.runners = runners

    def task(self, agent: Subagent[..., Any], *args: Any) -> str:
        station = self.runners.station()
        session = station.hermes.session("chat")
        return str(station.call(session.dispatch, agent, *args).id)

    def run(self, task_id: str) -> Task:
        with suppress(AgentFailed, Ignore, Retry):
            run_here(self.runners, task_id)
        return self.record(task_id)

    def record(self, task_id: str) -> Task:
        station = self.runners.station()
        task = station.call(station.hermes.store.load, task_id)
        assert task is not None
        return task


@subagent
def limited(ctx: TaskContext) -> None:
    raise SoftTimeLimitExceeded(1)


@subagent(pool="process")
async def limited_in_child(ctx: TaskContext) -> None:
    """Interrupts the thread that waits for it, as the soft limit does."""
    try:
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        ctx.message("cleaned up")
        raise


@subagent
def leaving(ctx: TaskContext) -> None:
    raise SystemExit(-241)


@subagent(pool="process")
async def careless(ctx: TaskContext) -> str:
    await ctx.dispatch("sync_echo", "nobody waits for it")
    return "done"


@subagent
def careless_def(ctx: TaskContext) -> str:
    ctx.wait(ctx.dispatch, "sync_echo", "nobody waits for it")
    return "done"


KNOWN = [
    *(agents.sync_echo, agents.nap_in_child, agents.sync_fail),
    *(limited, limited_in_child, leaving, careless, careless_def),
]


@pytest.fixture
def here(redis_url: str, tmp_path: Path) -> Iterator[Here]:
    settings = Settings.read(environ={"HERMES_STATE_DIR": str(tmp_path)})
    here = Here(Runners(Registry(AgentsConfig(), KNOWN), Servers(redis_url, redis_url), settings))
    yield here
    here.runners.close()


@pytest.mark.parametrize("agent", [careless, careless_def])
def test_a_task_of_the_process_lane_ends_after_its_children(here: Here, agent: Subagent[..., Any]) -> None:
    task_id, station = here.task(agent), here.runners.station()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(here.run, task_id)
        wait_until(lambda: station.hermes.feed._readers)  # it listens for its child's end
        assert here.record(task_id).status is S.RUNNING
        [child] = station.call(partial(station.hermes.store.tasks, agent="sync_echo"))
        station.call(station.hermes.store.claim, child.id, "w1", 60.0)
        claimed = here.record(child.id)
        assert station.call(station.hermes.store.append, make_event(claimed, "task.completed"))
        assert running.result(10).status is S.COMPLETED


def test_a_def_and_an_async_def_run_in_a_child(here: Here) -> None:
    assert here.run(here.task(agents.sync_echo, "✓")).output == "✓"
    assert here.run(here.task(agents.nap_in_child, 0.01)).output == os.getpid()
    task = here.run(here.task(agents.sync_fail))
    assert task.error is not None
    assert (task.status, task.error.type) == (S.FAILED, "ValueError")


def test_a_second_delivery_is_ignored(here: Here) -> None:
    task_id = here.task(agents.sync_echo, "x")
    assert run_here(here.runners, task_id) == "completed"
    with pytest.raises(Ignore):
        run_here(here.runners, task_id)


def test_a_soft_limit_is_a_timeout(here: Here) -> None:
    task = here.run(here.task(limited.options(timeout=7.0)))
    assert task.error is not None
    assert (task.reason, task.error.message) == ("timeout", "no result within 7 s")


def test_a_soft_limit_before_the_agent_began_counts(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    station = here.runners.station()
    really = station.call

    def struck(*args: Any) -> Any:
        station.interrupted = True
        return really(*args)

    task_id = here.task(agents.sync_echo.options(timeout=7.0), "x")
    monkeypatch.setattr(station, "call", struck)
    assert here.run(task_id).reason == "timeout"
    monkeypatch.undo()
    assert here.run(here.task(agents.sync_echo, "x")).output == "x"


@pytest.fixture
def soft_limits() -> Iterator[None]:
    """The signal raises what it raises in a prefork child."""

    def strike(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, strike)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_soft_limit_that_strikes_while_the_attempt_begins_is_not_lost(
    here: Here, soft_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(Untraced):
        @contextmanager
        def attempt(self, task: Task) -> Iterator[None]:
            with suppress(Exception):  # as what guards against a bad provider does
                signal.raise_signal(signal.SIGUSR1)
            yield

    monkeypatch.setattr(here.runners.station().hermes.journal, "tracing", Careless())
    assert here.run(here.task(agents.sync_echo.options(timeout=7.0), "x")).reason == "timeout"


def test_a_soft_limit_lets_an_async_def_clean_up(here: Here, soft_limits: None) -> None:
    task_id = here.task(limited_in_child.options(timeout=7.0))
    assert here.run(task_id).reason == "timeout"
    station = here.runners.station()
    page = station.call(station.hermes.store.events, "chat", 0, 100)
    assert [event.type for event in page.events][-2:] == ["session.message", "task.failed"]


def test_a_child_that_is_told_to_go_writes_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main process knows whether that is a shutdown or a hard limit, and writes it."""
    monkeypatch.setattr(bodies, "terminate_handler_fired", lambda: True)
    task_id = here.task(leaving)
    with pytest.raises(SystemExit):
        here.run(task_id)
    assert here.record(task_id).status is S.RUNNING
    monkeypatch.undo()
    assert here.run(here.task(leaving)).status is S.FAILED  # its own wish is an error like any other


def test_a_forked_child_has_a_station_of_its_own(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = here.runners.station()
    assert here.runners.station() is mine
    assert mine.call(mine.hermes.store.ping)
    with monkeypatch.context() as patch:
        patch.setattr(bodies.os, "getpid", lambda: 1)
        here.runners.close_child()  # it has none yet
        other = here.runners.station()
        assert other is not mine
        assert other.call(other.hermes.store.ping)
        here.runners.close_child()
    here.runners.close_child()  # the parent's stays
    assert here.runners.station() is mine
    assert mine.call(mine.hermes.store.ping)


# -- the async lane --------------------------------------------------------------------------------------
class FakePool:
    def __init__(self) -> None:
        self.callbacks: list[Callable[[], Any]] = []

    def on_loop_stop(self, callback: Callable[[], Any]) -> None:
        self.callbacks.append(callback)


def test_fifty_tasks_open_one_hermes(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Hermes] = []
    pool, really = FakePool(), bodies.open_patiently

    async def counted(*args: Any) -> Hermes:
        opened.append(await really(*args))
        return opened[-1]

    monkeypatch.setattr(bodies, "running_pool", lambda: pool)
    monkeypatch.setattr(bodies, "open_patiently", counted)

    async def all_at_once() -> None:
        tasks = [asyncio.create_task(here.runners.on_loop()) for _ in range(50)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # the others do not suffer
        await asyncio.gather(*tasks[1:])
        (close,) = pool.callbacks
        await close()

    asyncio.run(all_at_once())
    assert len(opened) == 1


def test_a_pool_stops_although_redis_never_answered(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool()
    monkeypatch.setattr(bodies, "running_pool", lambda: pool)
    here.runners.servers = Servers("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0")

    async def stop() -> None:
        task = asyncio.create_task(here.runners.on_loop())
        await asyncio.sleep(0.05)
        await pool.callbacks[0]()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(stop())
