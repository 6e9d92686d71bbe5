"""The worker's side jobs, on a thread of their own: leases are renewed, what was lost is repaired."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ServiceError
from hermes_async.worker.bodies import Runners

logger = logging.getLogger("hermes.worker")

#: Seconds between two rounds of the janitor, and between two prunings.
SWEEP_EVERY, PRUNE_EVERY = 0.5, 600.0


class SideJobs(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the side jobs with the worker; they end after the pool has drained, not before."""

    def start(self, parent: Any) -> None:
        """Open the station and begin."""
        runners: Runners = parent.app.hermes
        station = runners.station()
        keeper = LeaseKeeper(station.hermes, runners)
        station.start(_forever, keeper.renew, runners.lease / 3)
        station.start(_forever, station.hermes.janitor.sweep, SWEEP_EVERY)
        station.start(_forever, lambda: station.hermes.janitor.prune(runners.retention), PRUNE_EVERY)
        signals.worker_shutdown.connect(lambda **_: runners.close(), weak=False)


class LeaseKeeper:
    """Tells the record which tasks this worker still runs, and hears which of them are to end."""

    def __init__(self, hermes: Hermes, runners: Runners) -> None:
        self._hermes = hermes
        self._runners = runners
        self._held: set[str] = set()

    async def renew(self) -> None:
        """Renew the leases of all running tasks; stop those that are cancelled or no longer ours."""
        active = {request.id for request in list(state.active_requests)}
        renewal = await self._hermes.store.renew(self._runners.worker, sorted(active), self._runners.lease)
        lost = self._held & active - set(renewal.held)
        self._held = set(renewal.held)
        for task_id in (*lost, *renewal.cancelled):
            logger.warning(
                "task %s: stopping, %s", task_id, "not ours any more" if task_id in lost else "cancelled"
            )
            await self._hermes.journal.queue.revoke(task_id, force=False)


async def _forever(job: Callable[[], Awaitable[object]], every: float) -> None:
    """Do a job again and again; a server that is away is waited for."""
    while True:
        try:
            await job()
        except ServiceError as exc:
            logger.warning("%s", exc)
        except Exception:
            logger.exception("a side job of the worker failed; it goes on")
        await asyncio.sleep(every * random.uniform(0.9, 1.1))
