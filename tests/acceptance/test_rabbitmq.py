"""RabbitMQ carries the tasks, Redis keeps the state: real workers, and a node that is killed or cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes_async.adapters.celery_queue import CeleryQueue
from hermes_async.core.handle import TaskHandle
from hermes_async.domain.task import Lane, TaskStatus
from tests.support import agents
from tests.support.asking import ended, told
from tests.support.rabbitmq import RabbitServer, running_rabbitmq
from tests.support.servers import BUSY, Process, wait_until_async
from tests.support.site import RECOVERY, Site, site_over, until_said
from tests.support.values import make_task

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]

S = TaskStatus
ONCE = ["queued", "started", "completed"]
BOTH = (Lane.ASYNC, Lane.PROCESS)


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A node that takes a message back after three seconds without an ack."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    yield from running_rabbitmq(folder, consumer_timeout=3000, channel_tick_interval=500)


@pytest.fixture
def own_rabbit(tmp_path: Path) -> Iterator[RabbitServer]:
    """A node that the test may break."""
    yield from running_rabbitmq(tmp_path / "rabbitmq")


@pytest.fixture
async def site(
    rabbit: RabbitServer, redis_url: str, tmp_path: Path, spawn: Callable[..., Process]
) -> AsyncIterator[Site]:
    async with site_over(redis_url, tmp_path, spawn, broker=rabbit.url) as site:
        yield site


@pytest.fixture
async def own_site(
    own_rabbit: RabbitServer, redis_url: str, tmp_path: Path, spawn: Callable[..., Process]
) -> AsyncIterator[Site]:
    async with site_over(redis_url, tmp_path, spawn, broker=own_rabbit.url) as site:
        yield site


def waiting(rabbit: RabbitServer) -> int:
    """How many messages of both lanes are not acked."""
    lines = rabbit.control("list_queues", "name", "messages").splitlines()
    return sum(
        int(count) for name, count in map(str.split, lines) if name in ("hermes.async", "hermes.process")
    )


async def until_drained(rabbit: RabbitServer) -> None:
    async def is_drained() -> bool:
        return await asyncio.to_thread(waiting, rabbit) == 0

    await wait_until_async(is_drained, 20, every=0.5)


async def went_once(*handles: TaskHandle[Any]) -> None:
    """Nothing was lost and nothing was done twice."""
    for handle in handles:
        assert ((await ended(handle, 30)).status, await told(handle)) == (S.COMPLETED, ONCE)


async def test_values_errors_retries_and_cancels_in_both_lanes(site: Site, rabbit: RabbitServer) -> None:
    values = [await site.dispatch(agent, "✓") for agent in (agents.echo, agents.sync_echo)]
    workers = await site.workers(*BOTH)
    assert [await asyncio.wait_for(handle, 20) for handle in values] == ["✓", "✓"]
    for agent in (agents.flaky, agents.sync_flaky):
        handle = await site.dispatch(agent)
        assert (await ended(handle)).output == 2
        assert await told(handle) == ["queued", "started", "retrying", "started", "completed"]
    for agent in (agents.nap, agents.sync_nap):
        handle = await site.dispatch(agent, 30)
        await site.running(handle)
        assert await handle.cancel()
        assert (await ended(handle)).status is S.CANCELLED
    await until_drained(rabbit)
    assert all("Traceback" not in worker.log for worker in workers)


async def test_nine_is_first(site: Site) -> None:
    priorities = (0, 5, 9, 3, 9, 8)
    handles = [
        await site.dispatch(agents.sync_echo.options(priority=priority), "x") for priority in priorities
    ]
    await site.workers(Lane.PROCESS, size=1)
    started = {}
    for handle, priority in zip(handles, priorities, strict=True):
        await ended(handle)
        (moment,) = [event.seq async for event in handle.events() if event.type == "task.started"]
        started[moment] = priority
    assert [started[moment] for moment in sorted(started)] == [9, 9, 8, 5, 3, 0]


async def test_a_killed_worker_loses_nothing(site: Site, rabbit: RabbitServer) -> None:
    first = await site.workers(*BOTH)
    kinds = [agents.nap_once] * 5 + [agents.sync_nap_once] * 2
    handles = [await site.dispatch(agent, 60) for agent in kinds]
    await site.running(*handles)
    for worker in first:
        worker.kill()
    await site.workers(*BOTH)
    for handle in handles:
        task = await ended(handle, RECOVERY + 15)
        assert (task.status, task.attempt, task.losses) == (S.COMPLETED, 2, 1)
    await until_drained(rabbit)


async def test_a_task_may_run_longer_than_rabbitmq_waits_for_an_ack(site: Site, rabbit: RabbitServer) -> None:
    """Before 3.12 it closes the worker's channel and delivers the message again."""
    workers = await site.workers(*BOTH)
    handles = [await site.dispatch(agent, 7) for agent in (agents.nap, agents.sync_nap)]
    await went_once(*handles)
    assert "x-consumer-timeout" in await asyncio.to_thread(rabbit.control, "list_queues", "arguments")
    major, minor, *_ = map(int, (await asyncio.to_thread(rabbit.control, "version")).split("."))
    for worker in workers:
        assert ("delivery acknowledgement on channel" in worker.log) == ((major, minor) < (3, 12))
    await went_once(*[await site.dispatch(agent, "x") for agent in (agents.echo, agents.sync_echo)])
    await until_drained(rabbit)
    assert all(worker.alive for worker in workers)


async def test_a_lane_is_a_classic_queue_where_another_kind_is_the_default(rabbit: RabbitServer) -> None:
    """A quorum queue refuses our priorities."""
    for args in (
        ("add_vhost", "modern", "--default-queue-type", "quorum"),
        ("set_permissions", "-p", "modern", "guest", ".*", ".*", ".*"),
    ):
        await asyncio.to_thread(rabbit.control, *args)
    queue = CeleryQueue(rabbit.url.removesuffix("/") + "modern", shares_store=False)
    await queue.publish_all([make_task()])
    await queue.close()
    listed = await asyncio.to_thread(
        rabbit.control, "list_queues", "-p", "modern", "name", "type", "messages"
    )
    assert listed.split()[-3:] == ["hermes.async", "classic", "1"]


async def test_a_connection_that_is_closed_while_tasks_run_costs_nothing(
    site: Site, rabbit: RabbitServer
) -> None:
    workers = await site.workers(*BOTH)
    kinds = [agents.nap] * 5 + [agents.sync_nap] * 2
    running = [await site.dispatch(agent, 2) for agent in kinds]
    await site.running(*running)
    await asyncio.to_thread(rabbit.control, "close_all_connections", "a test")
    later = [await site.dispatch(agent, "x") for agent in (agents.echo, agents.sync_echo)]
    await went_once(*running, *later)
    await until_drained(rabbit)
    assert all(worker.alive for worker in workers)


@pytest.mark.parametrize("end", [RabbitServer.stop, RabbitServer.kill])
async def test_a_restart_of_the_broker_delays_and_loses_nothing(
    own_site: Site, own_rabbit: RabbitServer, end: Callable[[RabbitServer], None]
) -> None:
    workers = await own_site.workers(*BOTH, size=1)
    running = [await own_site.dispatch(agent, 6) for agent in (agents.nap, agents.sync_nap)]
    await own_site.running(*running)
    queued = await own_site.dispatch(agents.sync_echo, "behind the nap, in the queue")
    await asyncio.to_thread(end, own_rabbit)
    unpublished = [await own_site.dispatch(agent, "x") for agent in (agents.echo, agents.sync_echo)]
    await asyncio.to_thread(own_rabbit.start)
    await went_once(*running, queued, *unpublished)
    await until_drained(own_rabbit)
    assert all(worker.alive for worker in workers)
    for worker in workers:
        await until_said(worker, "Connected to amqp")


async def test_a_broker_that_is_out_of_memory_delays_and_loses_nothing(
    own_site: Site, own_rabbit: RabbitServer
) -> None:
    """It reads nothing then of who publishes."""
    workers = await own_site.workers(*BOTH)
    await went_once(*[await own_site.dispatch(agent, "x") for agent in (agents.echo, agents.sync_echo)])
    running = [await own_site.dispatch(agent, 3) for agent in (agents.nap, agents.sync_nap)]
    await own_site.running(*running)
    await asyncio.to_thread(own_rabbit.control, "set_vm_memory_high_watermark", "0")
    handles = []
    for agent in (agents.echo, agents.sync_echo) * 5:
        began = time.monotonic()
        handles.append(await own_site.dispatch(agent, "x"))
        assert time.monotonic() - began < BUSY
    for handle in running:
        assert (await ended(handle)).status is S.COMPLETED
    assert {(await handle.task()).status for handle in handles} == {S.QUEUED}
    await asyncio.to_thread(own_rabbit.control, "set_vm_memory_high_watermark", "0.9")
    await went_once(*running, *handles)
    await until_drained(own_rabbit)
    assert all(worker.alive for worker in workers)


async def test_a_queue_that_is_deleted_under_its_worker_is_there_again(
    site: Site, rabbit: RabbitServer
) -> None:
    workers = await site.workers(*BOTH, size=1)
    running = [await site.dispatch(agent, 3) for agent in (agents.nap, agents.sync_nap)]
    await site.running(*running)
    for lane in BOTH:
        await asyncio.to_thread(rabbit.control, "delete_queue", f"hermes.{lane}")
    later = [await site.dispatch(agent, "x") for agent in (agents.echo, agents.sync_echo)]
    await went_once(*running, *later)
    await until_drained(rabbit)
    assert all(worker.alive for worker in workers)
