"""Every broker with every lane: what a parent may rely on, wherever its tasks wait and run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.events import CompletedData
from hermes_async.domain.task import TaskStatus
from tests.matrix.conftest import DURABLE, Cell, Parent, cells
from tests.support.asking import ended, told

#: The first test of a cell may have to wait for the image of its container.
pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(180)]

S = TaskStatus


async def moments(handle: TaskHandle[Any]) -> dict[str, int]:
    """What the log says of an ended task, and the `seq` of each line."""
    return {event.type.removeprefix("task."): event.seq async for event in handle.events()}


def test_a_worker_is_ready_and_hears_remote_control(celery_setup: CeleryTestSetup, cell: Cell) -> None:
    assert celery_setup.ready(docker=True)
    worker, control = celery_setup.worker.hostname(), celery_setup.app.control
    assert control.ping(timeout=10, destination=[worker]) == [{worker: {"ok": "pong"}}]
    registered = control.inspect(timeout=10, destination=[worker]).registered()
    assert f"hermes.{cell.lane}_echo" in registered[worker]


async def test_a_task_completes_and_its_parent_hears(celery_setup: CeleryTestSetup, parent: Parent) -> None:
    handle = await parent.echo("✓")
    assert (await ended(handle)).output == "✓"
    assert await told(handle) == ["queued", "started", "completed"]
    (delivery,) = await parent.session.pending()
    assert isinstance(delivery.event.data, CompletedData)
    assert (delivery.event.task_id, delivery.event.data.output) == (handle.id, "✓")
    assert await delivery.ack()
    assert not await parent.session.pending()


async def test_9_goes_before_0(celery_setup: CeleryTestSetup, parent: Parent) -> None:
    await parent.hold()
    last, first = await parent.echo("last", priority=0), await parent.echo("first", priority=9)
    parent.let_go()
    assert [(await ended(handle)).output for handle in (first, last)] == ["first", "last"]
    assert (await moments(first))["completed"] < (await moments(last))["started"]


async def test_a_cancel_stops_what_runs(celery_setup: CeleryTestSetup, parent: Parent) -> None:
    handle = await parent.hold()
    assert await handle.cancel()
    assert (await ended(handle)).status is S.CANCELLED
    assert await told(handle) == ["queued", "started", "cancel_requested", "cancelled"]
    assert (await ended(await parent.echo("the slot is free"))).status is S.COMPLETED


async def test_a_killed_worker_s_task_is_finished_by_the_next(
    celery_setup: CeleryTestSetup, parent: Parent
) -> None:
    handle = await parent.hold()
    celery_setup.worker.kill()
    parent.let_go()
    await asyncio.to_thread(celery_setup.worker.restart)
    task = await ended(handle)
    assert (task.status, task.output, task.losses) == (S.COMPLETED, 2, 1)


@pytest.mark.parametrize("cell", cells(*DURABLE), indirect=True, ids=str)
async def test_a_restart_of_the_broker_costs_no_attempt(
    celery_setup: CeleryTestSetup, parent: Parent
) -> None:
    running, waiting = await parent.hold(), await parent.echo("✓")
    await asyncio.to_thread(celery_setup.broker.restart)
    await asyncio.to_thread(celery_setup.worker.assert_log_exists, "Connection to broker lost")
    parent.let_go()
    assert ((await ended(running)).output, (await ended(waiting)).output) == (1, "✓")


async def test_a_worker_that_is_stopped_ends_what_it_has_begun(
    celery_setup: CeleryTestSetup, parent: Parent
) -> None:
    """The last one of a cell: nobody has to start its worker again."""
    running = await parent.hold()
    celery_setup.worker.kill("SIGTERM")
    await asyncio.to_thread(celery_setup.worker.assert_log_exists, "Warm shutdown")
    late = await parent.echo("for another worker")
    parent.let_go()
    assert ((await ended(running)).output, (await late.task()).status) == (1, S.QUEUED)
    assert await asyncio.to_thread(celery_setup.worker.container.process.wait) == 0
    assert (await late.task()).status is S.QUEUED
