"""Real workers of both lanes: how attempts end, cancels, crashes, shutdowns, and servers that go away."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from hermes_async.adapters import celery_queue
from hermes_async.bootstrap import connect
from hermes_async.core.handle import TaskHandle
from hermes_async.domain.agent import RetryPolicy
from hermes_async.domain.events import CancelRequestedData, task_event
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import MAX_LOSSES
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.sdk import TaskContext, subagent
from hermes_async.settings import Settings
from tests.support import agents
from tests.support.asking import ended, told
from tests.support.servers import Process, RedisServer, is_alive, running_redis, wait_until_async
from tests.support.site import LEASE, RECOVERY, Site, gone, site_over, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]

S = TaskStatus
ASK = CancelRequestedData()


# -- how attempts end ------------------------------------------------------------------------------------
async def test_values_errors_and_retries_in_both_lanes(site: Site, redis_server: RedisServer) -> None:
    values = [await site.dispatch(agent, "✓") for agent in (agents.echo, agents.sync_echo)]
    with redis_server.client() as client:
        assert_message_is_bare(client, values[0])
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS)
    errors = [await site.dispatch(agent) for agent in (agents.fail, agents.sync_fail)]
    retries = [await site.dispatch(agent) for agent in (agents.flaky, agents.sync_flaky)]
    leaver = await site.dispatch(agents.leave, 3)
    assert [await asyncio.wait_for(handle, 20) for handle in values] == ["✓", "✓"]
    for handle in errors:
        task = await ended(handle)
        assert task.error is not None
        assert (task.status, task.reason, task.attempt) == (S.FAILED, Reason.ERROR, 1)
        assert (task.error.type, task.error.message) == ("ValueError", "no ❄")
        assert "support/agents.py" in task.error.traceback
    for handle in retries:
        task = await ended(handle)
        assert (task.output, task.failures) == (2, 1)
        assert await told(handle) == ["queued", "started", "retrying", "started", "completed"]
    task = await ended(leaver)
    assert task.error is not None
    assert (task.status, task.error.type) == (S.FAILED, "SystemExit")
    for worker in workers:
        assert "retry: ConnectionError: attempt 1" in worker.log
        assert "Traceback" not in worker.log
        assert "Warning" not in worker.log


def assert_message_is_bare(client: redis.Redis, handle: TaskHandle[Any]) -> None:
    """It names the task and its trace; the input and the options stay in the record."""
    ((_, fields),) = client.xrange("hermes.async")  # type: ignore[misc]
    message = json.loads(fields["m"])
    assert json.loads(b64decode(message["body"]))[:2] == [[], {}]
    headers = message["headers"]
    assert (headers["id"], headers["task"]) == (handle.id, "hermes.echo")
    assert handle.trace_id in headers["traceparent"]
    assert "✓" not in fields["m"]
    assert (headers["argsrepr"], headers["kwargsrepr"]) == ("()", "{}")


async def test_time_limits_in_both_lanes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_queue, "GRACE", 1.0)  # it travels in the message
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS, size=4)
    polite = [
        await site.dispatch(agent.options(timeout=0.5), 30)
        for agent in (agents.nap, agents.sync_nap, agents.nap_in_child)
    ]
    rude = [
        await site.dispatch(agent.options(timeout=0.5), 15)
        for agent in (agents.stubborn, agents.sync_stubborn)
    ]
    again = await site.dispatch(
        agents.sync_stubborn.options(timeout=0.5, retry_limit=1, retry=agents.SOON), 15
    )
    for handle in (*polite, *rude, again):
        task = await ended(handle)
        assert task.error is not None
        assert (task.status, task.reason) == (S.FAILED, Reason.TIMEOUT), handle
        kind = "TimeoutError" if handle in polite else "TimeLimitExceeded"
        assert task.error.type == kind, task.agent
        assert task.attempt == (2 if handle is again else 1)
    for handle in polite:
        assert await told(handle) == ["queued", "started", "session.message", "failed"]
    for agent in (agents.echo, agents.sync_echo):  # and the workers go on
        assert await asyncio.wait_for(await site.dispatch(agent, "x"), 10) == "x"
    for worker in workers:
        worker.signal(signal.SIGQUIT)  # a zombie is not waited for


# -- cancels ---------------------------------------------------------------------------------------------
async def test_cancels_in_both_lanes(site: Site) -> None:
    queued = await site.dispatch(agents.nap, 30)
    assert await queued.cancel()
    assert await told(queued) == ["queued", "cancel_requested", "cancelled"]

    await site.workers(Lane.ASYNC, Lane.PROCESS, size=6)
    nappers = [agents.nap, agents.sync_nap, agents.nap_in_child]
    asked = [await site.dispatch(agent, 30) for agent in nappers]
    forced = [await site.dispatch(agent, 30) for agent in (agents.nap, agents.sync_nap)]
    unheard = [await site.dispatch(agent, 30) for agent in (agents.nap, agents.sync_nap)]
    innocent = [await site.dispatch(agent, 3) for agent in (agents.nap, agents.sync_nap)]
    await site.running(*asked, *forced, *unheard, *innocent)
    for handle in unheard:  # as `cancel` does, but the broadcast is lost
        await site.hermes.journal.append(task_event(await handle.task(), "task.cancel_requested", ASK))
    started = time.monotonic()
    for handle in forced:
        assert await handle.cancel(force=True)
        assert (await ended(handle)).status is S.CANCELLED
    assert time.monotonic() - started < LEASE  # the record does not wait for the lease
    for handle in asked:
        assert await handle.cancel()
    for handle in (*asked, *unheard):
        assert (await ended(handle)).status is S.CANCELLED
        heard = ["queued", "started", "cancel_requested", "session.message", "cancelled"]
        assert await told(handle) == heard, await handle.task()
    for handle in innocent:
        assert ((await ended(handle)).status, (await handle.task()).attempt) == (S.COMPLETED, 1)
        assert not await handle.cancel()


async def test_cancels_of_what_waits_for_its_next_attempt(site: Site) -> None:
    (worker,) = await site.workers(Lane.ASYNC)
    never = RetryPolicy(initial=60.0, jitter=False)
    waiting = await site.dispatch(agents.fail.options(retry_limit=3, retry=never))
    revoked = await site.dispatch(
        agents.fail.options(retry_limit=3, retry=RetryPolicy(initial=1.0, jitter=False))
    )
    await wait_until_async(lambda: has_failed_once(waiting, revoked))
    assert await waiting.cancel()
    assert await told(waiting) == ["queued", "started", "retrying", "cancel_requested", "cancelled"]
    await site.hermes.journal.queue.revoke([revoked.id], force=False)  # as Celery's tools do
    assert (await ended(revoked)).status is S.CANCELLED
    assert "Discarding revoked task" in worker.log


async def has_failed_once(*handles: TaskHandle[Any]) -> bool:
    tasks = [await handle.task() for handle in handles]
    return all((task.status, task.failures) == (S.QUEUED, 1) for task in tasks)


# -- crashes ---------------------------------------------------------------------------------------------
async def test_a_killed_async_worker_loses_nothing(site: Site) -> None:
    (first,) = await site.workers(Lane.ASYNC)
    handles = [await site.dispatch(agents.nap_once, 60) for _ in range(20)]
    unwanted = await site.dispatch(agents.nap, 60)
    await site.running(*handles, unwanted)
    (second,) = await site.workers(Lane.ASYNC)
    first.kill()
    killed = time.monotonic()
    assert await unwanted.cancel()
    for handle in handles:
        task = await ended(handle)
        assert (task.status, task.output, task.attempt, task.losses) == (S.COMPLETED, second.pid, 2, 1)
        assert await told(handle) == ["queued", "started", "attempt_lost", "started", "completed"]
    assert (await ended(unwanted)).status is S.CANCELLED
    assert time.monotonic() - killed < RECOVERY

    (third,) = await site.workers(Lane.ASYNC)
    killer = await site.dispatch(agents.kill_worker, 1)  # whoever takes it dies, the other one completes it
    task = await ended(killer)
    assert (task.output, task.losses) == (2, 1)
    assert [second.alive, third.alive].count(False) == 1


async def test_a_stopped_worker_comes_too_late(site: Site) -> None:
    (sleeper,) = await site.workers(Lane.ASYNC)
    # One is over when the worker wakes up, the other is not; neither is before the second worker is there.
    handles = [await site.dispatch(agents.nap_once, 60), await site.dispatch(agents.nap_once, 12)]
    await site.running(*handles)
    (other,) = await site.workers(Lane.ASYNC)
    sleeper.signal(signal.SIGSTOP)
    for handle in handles:
        assert (await ended(handle)).output == other.pid
    sleeper.signal(signal.SIGCONT)
    await until_said(sleeper, "it is not ours any more")
    (mine,) = await asyncio.gather(ended(await site.dispatch(agents.echo, "x")))
    assert mine.output == "x"
    for handle in handles:
        assert await told(handle) == ["queued", "started", "attempt_lost", "started", "completed"]
        assert (await handle.task()).output == other.pid
    other.kill()  # the one that was stopped is as good as before
    assert await asyncio.wait_for(await site.dispatch(agents.echo, "again"), 10) == "again"


async def test_killed_children_and_a_killed_prefork_main(site: Site) -> None:
    (first,) = await site.workers(Lane.PROCESS, size=3)
    once, always = await site.dispatch(agents.kill_child, 1), await site.dispatch(agents.kill_child)
    innocent = await site.dispatch(agents.sync_nap, 3)
    task = await ended(once)
    assert (task.output, task.losses) == (2, 1)
    task = await ended(always)
    assert (task.status, task.reason, task.attempt) == (S.FAILED, Reason.WORKER_LOST, MAX_LOSSES)
    assert ((await ended(innocent)).status, (await innocent.task()).attempt) == (S.COMPLETED, 1)

    handle = await site.dispatch(agents.sync_nap_once, 60)
    await site.running(handle)
    (second,) = await site.workers(Lane.PROCESS)
    children = psutil.Process(first.pid).children(recursive=True)
    first.signal(signal.SIGKILL)
    task = await ended(handle)
    assert (task.output, task.losses) == (second.pid, 1)
    await wait_until_async(lambda: not [child for child in children if is_alive(child)])


async def test_a_child_that_dies_after_its_attempt_does_not_take_the_next_one_along(
    site: Site, tmp_path: Path
) -> None:
    (worker,) = await site.workers(Lane.PROCESS, size=3)
    handle = await site.dispatch(agents.die_when_settled, str(tmp_path))
    await until_said(worker, "WorkerLostError")
    await ended(await site.dispatch(agents.sync_echo, "later than what follows from the death"))
    (tmp_path / "let-go").touch()
    task = await ended(handle)
    assert (task.output, task.losses) == (2, 0)
    assert await told(handle) == ["queued", "started", "retrying", "started", "completed"]


# -- shutdowns -------------------------------------------------------------------------------------------
async def test_warm_and_cold_stops(site: Site) -> None:
    nappers = [agents.nap, agents.sync_nap]
    leaving = await site.workers(Lane.ASYNC, Lane.PROCESS)
    handles = [await site.dispatch(agent, 3 * LEASE) for agent in nappers]
    await site.running(*handles)
    staying = await site.workers(Lane.ASYNC, Lane.PROCESS)  # their janitors watch the leases
    assert await asyncio.gather(*(stopped(worker, signal.SIGTERM) for worker in leaving)) == [0, 0]
    for handle in handles:
        task = await ended(handle)
        assert (task.status, task.attempt) == (S.COMPLETED, 1)

    handles = [await site.dispatch(agent, 60) for agent in (agents.nap_once, agents.sync_nap_once)]
    await site.running(*handles)
    assert await asyncio.gather(*(stopped(worker, signal.SIGQUIT) for worker in staying)) == [0, 0]
    assert all("Traceback" not in worker.log for worker in (*leaving, *staying))
    await site.workers(Lane.ASYNC, Lane.PROCESS)
    for handle in handles:
        task = await ended(handle)
        assert (task.status, task.attempt, task.losses, task.failures) == (S.COMPLETED, 2, 0, 0), task.agent
        assert await told(handle) == ["queued", "started", "attempt_lost", "started", "completed"]


async def test_a_stopping_worker_gives_away_what_takes_longer_than_its_grace(site: Site) -> None:
    leaving = await site.workers(Lane.ASYNC, Lane.PROCESS, env={"HERMES_GRACE": "1"}, size=3)
    in_time = [await site.dispatch(agent, 1.0) for agent in (agents.nap, agents.sync_nap)]
    too_long = [
        await site.dispatch(agent, 60)
        for agent in (agents.nap_once, agents.sync_nap_once, agents.stubborn_once, agents.sync_stubborn_once)
    ]
    await site.running(*in_time, *too_long)
    assert await asyncio.gather(*(stopped(worker, signal.SIGTERM) for worker in leaving)) == [0, 0]
    for worker in leaving:
        assert "what has not ended within 1 s of the stop goes on in another worker" in worker.log
        assert "Traceback" not in worker.log
    for handle in in_time:
        assert ((await ended(handle)).status, (await handle.task()).attempt) == (S.COMPLETED, 1)

    await site.workers(Lane.ASYNC, Lane.PROCESS)
    for handle in too_long:
        task = await ended(handle)
        assert (task.status, task.attempt, task.losses, task.failures) == (S.COMPLETED, 2, 0, 0), task.agent
        assert await told(handle) == ["queued", "started", "attempt_lost", "started", "completed"]


async def stopped(worker: Process, number: int) -> int:
    worker.signal(number)
    return await gone(worker)


# -- servers that go away --------------------------------------------------------------------------------
async def test_an_outage_of_redis_delays_and_loses_nothing(
    tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    for server in running_redis(tmp_path / "redis", aof=True):
        async with site_over(server.url, tmp_path, spawn) as site:
            await outage(site, server)


async def outage(site: Site, server: RedisServer) -> None:
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS, size=4)
    short = [await site.dispatch(agent, 2) for agent in (agents.nap, agents.sync_nap)]
    long = [await site.dispatch(agent, 10) for agent in (agents.nap, agents.sync_nap)]
    await site.running(*short, *long)
    server.stop()
    await asyncio.sleep(5)  # longer than the short ones, and than their leases
    server.start()
    for handle in (*short, *long):
        task = await ended(handle)
        assert (task.status, task.attempt) == (S.COMPLETED, 1), task.agent
    for agent in (agents.echo, agents.sync_echo):
        assert await asyncio.wait_for(await site.dispatch(agent, "x"), 15) == "x"
    assert all(worker.alive for worker in workers)


# -- the command line of Celery, and what is refused -----------------------------------------------------
async def test_an_agent_that_the_worker_lacks(site: Site) -> None:
    (worker,) = await site.workers(Lane.ASYNC)

    @subagent
    async def ghost(ctx: TaskContext) -> None:
        """Known only to who dispatches."""

    async with connect(Settings.read(environ=site.env), agents=[ghost]) as newer:
        task = await ended(await newer.session("chat").dispatch(ghost))
    assert task.error is not None
    assert (task.status, task.error.type) == (S.FAILED, "UnknownAgent")
    assert "'ghost'" in task.error.message
    assert "start all workers (or `hermes-async up`) again" in task.error.message
    assert f"{task.id}: {task.error.message}" in worker.log  # and not Celery's page
    assert not [text for text in ("unregistered", "Traceback", "KeyError") if text in worker.log]


POOL = """
async_worker_pool: {min_workers: 1, slots_per_worker: 37}
"""


async def test_the_command_line_of_celery(site: Site, tmp_path: Path) -> None:
    (tmp_path / "agents.yaml").write_text(POOL)
    (tmp_path / "celeryconfig.py").write_text(
        "import os\nworker_send_task_events = True\nworker_prefetch_multiplier = 3\n"
    )
    quiet = ("--without-gossip", "--without-mingle", "-l", "INFO")
    plain = site.celery("worker", "-n", "plain@%h", *quiet)
    three = site.celery("worker", "-n", "three@%h", "-c", "3", *quiet)
    prefork = site.celery("worker", "-n", "prefork@%h", "-P", "prefork", *quiet)
    by_queue = site.celery("worker", "-n", "queue@%h", "-Q", "hermes.process", "-c", "2", *quiet)
    workers = {plain: "37 (pool)", three: "3 (pool)", prefork: "1 (prefork)", by_queue: "2 (prefork)"}
    for worker, concurrency in workers.items():
        await until_said(worker, "ready.")
        assert f"concurrency: {concurrency}" in worker.log
        assert "task events: ON" in worker.log  # celeryconfig.py
        queue = "hermes.process" if "prefork" in concurrency else "hermes.async"
        assert re.findall(r"\.> (hermes\.\w+)", worker.log) == [queue]
    handles = [await site.dispatch(agents.nap, 10), await site.dispatch(agents.sync_nap, 10)]
    await site.running(*handles)
    inspections = {
        what: site.celery("inspect", what, "-j", name=what) for what in ("ping", "active", "registered")
    }
    for inspection in inspections.values():
        assert await gone(inspection) == 0, inspection.log
    said = {what: json.loads(inspection.log) for what, inspection in inspections.items()}
    assert len(said["ping"]) == 4
    active = [task["id"] for tasks in said["active"].values() for task in tasks]
    assert sorted(active) == sorted(handle.id for handle in handles)
    assert all("hermes.echo" in names for names in said["registered"].values())


REFUSED = {
    "worker -P threads": "the thread pool ignores time limits",
    "worker -P solo": "the solo pool ignores time limits",
    "worker -Q hermes.process -P custom": "the queue hermes.process is not served by that pool",
    "worker -Q hermes.async -P prefork": "the queue hermes.async is not served by that pool",
    "worker -Q nonsense": "not nonsense",
    "worker -Q hermes.async,hermes.process": "serves one of the queues",
}
BROKEN = {
    "agents: {a: {rum: x}}": "did you mean 'run'?",
    'agents: {a: {run: "no.such:agent"}}': "cannot import 'no.such'",
    'agents: {a: {run: "tests.support.agents:nobody"}}': "has no 'nobody'",
}


async def test_what_is_refused_is_refused_in_one_sentence(site: Site, tmp_path: Path) -> None:
    custom = {"CELERY_CUSTOM_WORKER_POOL": "hermes_async.worker.pool:AsyncioPool"}
    started = [(site.celery(*args.split(), env=custom), why, 1) for args, why in REFUSED.items()]
    for number, (text, why) in enumerate(BROKEN.items()):
        config = tmp_path / f"broken-{number}.yaml"
        config.write_text(text)
        process = site.celery("worker", env={"HERMES_CONFIG": str(config)})
        started.append((process, why, 2))
    other = tmp_path / "other"
    other.mkdir()
    (other / "agents.yaml").write_text(POOL)
    (other / "celeryconfig.py").write_text("1 / 0\n")
    process = site.celery("worker", env={"HERMES_CONFIG": str(other / "agents.yaml")})
    started.append((process, "ZeroDivisionError", 2))
    for process, why, code in started:
        assert await gone(process) == code
        assert why in process.log
        assert process.log.startswith("hermes-async: ")
        assert process.log.count("\n") == 1
