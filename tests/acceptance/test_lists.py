"""Celery's own lists as the broker: their redelivery after a fixed time meets the claim."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hermes_async.domain.task import Lane, TaskStatus
from tests.support import agents
from tests.support.asking import ended, told
from tests.support.servers import Process
from tests.support.site import Site, site_over

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]

#: Messages that are not acknowledged come again after a second, also those of tasks that go on.
IMPATIENT = """
broker_transport_options = {
    "visibility_timeout": 1, "unacked_restore_interval": 0.5, "unacked_restore_throttle": 1
}
"""


@pytest.fixture
async def site(redis_url: str, tmp_path: Path, spawn: Callable[..., Process]) -> AsyncIterator[Site]:
    (tmp_path / "celeryconfig.py").write_text(IMPATIENT)
    url = redis_url.replace("redis://", "redis+list://")
    async with site_over(url, tmp_path, spawn) as site:
        yield site


@pytest.mark.parametrize("lane", Lane)
async def test_a_task_ten_times_longer_than_the_visibility_timeout_runs_once(site: Site, lane: Lane) -> None:
    (worker,) = await site.workers(lane)
    handle = await site.dispatch(agents.nap_once if lane is Lane.ASYNC else agents.sync_nap_once, 10)
    task = await ended(handle)
    assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1)
    assert await told(handle) == ["queued", "started", "completed"]
    assert worker.log.count(f"[{handle.id}] received") > 1  # the message did come again
