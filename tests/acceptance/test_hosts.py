"""Workers and parents on hosts of their own, whose network is cut."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hermes_async.core.handle import TaskHandle
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.worker.command import worker_command
from tests.support import agents
from tests.support.asking import ended, told
from tests.support.hosts import Host, Network, network
from tests.support.servers import Process, running_redis
from tests.support.site import LEASE, Site, site_over, until_said

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance, pytest.mark.timeout(120)]
S = TaskStatus

PARENT = """
import asyncio, time
from hermes_async import connect
from hermes_async.domain.errors import StoreUnavailable

async def main():
    async with connect() as hermes:
        session = hermes.session("far")
        handle = await session.dispatch("nap", seconds=4)
        print("dispatched", flush=True)
        while True:
            began = time.monotonic()
            try:
                await session.dispatch("nap", seconds=0)
            except StoreUnavailable as error:
                print(f"refused: {error}", "in time" if time.monotonic() - began < 3 else "late", flush=True)
                break
            await asyncio.sleep(0.1)
        print("it took", await handle, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def net() -> Iterator[Network]:
    yield from network(hosts=2)


@asynccontextmanager
async def site_of(net: Network, folder: Path, spawn: Callable[..., Process]) -> AsyncIterator[Site]:
    """A site whose Redis is on this machine, where the hosts reach it."""
    for server in running_redis(folder / "redis", "--bind", "0.0.0.0", "--protected-mode", "no"):
        async with site_over(f"redis://{net.gateway}:{server.port}/0", folder, spawn) as site:
            yield site


async def worker_on(host: Host, site: Site, lease: float = LEASE) -> Process:
    command = ["env", f"HERMES_LEASE={lease}", *worker_command(Lane.ASYNC, concurrency=50)]
    process = site.run(host.argv(command), host.name)
    await until_said(process, "ready.")
    return process


async def naps_on(site: Site, *workers: Process, seconds: float) -> list[TaskHandle[int]]:
    """Dispatch until each worker runs a nap; return one of each."""
    found: dict[str, TaskHandle[int]] = {}
    while not found.keys() >= {str(worker.pid) for worker in workers}:
        handle = await site.dispatch(agents.nap, seconds)
        await site.running(handle)
        found.setdefault(str((await handle.task()).worker).split(":")[1], handle)
    return [found[str(worker.pid)] for worker in workers]


async def test_what_ran_on_a_host_that_is_cut_off_goes_on_elsewhere(
    net: Network, tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    async with site_of(net, tmp_path, spawn) as site:
        far, near = [await worker_on(host, site) for host in net.hosts]
        lost, kept = await naps_on(site, far, near, seconds=6.0)
        net.hosts[0].cut()
        for handle, attempt in ((lost, 2), (kept, 1)):
            task = await ended(handle)
            assert (task.status, task.attempt, task.output) == (S.COMPLETED, attempt, near.pid)
        net.hosts[0].mend()
        await naps_on(site, far, seconds=0.5)  # it is back at work
        assert await told(lost) == ["queued", "started", "attempt_lost", "started", "completed"]


async def test_a_cut_that_is_shorter_than_the_lease_changes_nothing(
    net: Network, tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    async with site_of(net, tmp_path, spawn) as site:
        worker = await worker_on(net.hosts[0], site, lease=60.0)
        (handle,) = await naps_on(site, worker, seconds=5.0)
        net.hosts[0].cut()
        await until_said(worker, "does not work (no reply)")
        net.hosts[0].mend()
        task = await ended(handle)
        assert (task.status, task.attempt, task.output) == (S.COMPLETED, 1, worker.pid)


async def test_a_parent_that_is_cut_off_is_told_and_hears_the_result_later(
    net: Network, tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    async with site_of(net, tmp_path, spawn) as site:
        worker = await worker_on(net.hosts[0], site)
        parent = site.run(net.hosts[1].argv([sys.executable, "-c", PARENT]), "parent")
        await until_said(parent, "dispatched")
        net.hosts[1].cut()
        await until_said(parent, "refused: Redis at")
        net.hosts[1].mend()
        await until_said(parent, f"it took {worker.pid}")
        assert "in time" in parent.log
        assert parent.wait() == 0
