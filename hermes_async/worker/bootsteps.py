"""The worker's side jobs, on a thread of their own: leases are renewed, what was lost is repaired."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.worker import state

from hermes_async.core.hermes import Hermes
from hermes_async.core.janitor import Janitor
from hermes_async.domain.errors import ServiceError
from hermes_async.domain.lifecycle import Interrupted, decide
from hermes_async.domain.task import TaskStatus
from hermes_async.worker.bodies import Runners
from hermes_async.worker.station import PATIENCE, Station

logger = logging.getLogger("hermes.worker")

#: Seconds between two rounds of the janitor, and between two prunings.
SWEEP_EVERY, PRUNE_EVERY = 0.5, 600.0
#: The most tasks that a stopping worker looks through for its own.
HANDED_BACK = 10_000


class SideJobs(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the side jobs; after the pool, so that no child inherits them."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin; a Redis that is away is waited for in the background."""
        runners: Runners = parent.app.hermes
        station = runners.station()
        station.start(_side_jobs, station, runners, partial(_stop_soon, parent))


class Ending(bootsteps.StartStopStep):  # type: ignore[misc]
    """Ends the side jobs when everything else has stopped: leases last while the pool drains."""

    def include(self, parent: Any) -> None:
        """Be the first step, which is the last to stop."""
        parent.steps.insert(0, self)

    def start(self, parent: Any) -> None:
        """Nothing yet."""

    def stop(self, parent: Any) -> None:
        """Give back what was running, if the pool did not let it end, and close."""
        runners: Runners = parent.app.hermes
        station = runners.station()
        try:
            station.start(_hand_back, station, runners.worker).result(PATIENCE)
        except Exception as exc:
            logger.warning("what still ran here goes on when its lease has run out: %r", exc)
        runners.close()

    terminate = stop


async def _side_jobs(station: Station, runners: Runners, stop: Callable[[list[Any]], None]) -> None:
    hermes = await station.opened()
    keeper = LeaseKeeper(hermes, runners.worker, runners.lease, stop)
    caretaker = Caretaker(hermes.janitor, runners.lease)
    await asyncio.gather(
        _forever(keeper.renew, runners.lease / 3),
        _forever(caretaker.sweep, SWEEP_EVERY),
        _forever(partial(hermes.janitor.prune, runners.retention), PRUNE_EVERY),
    )


async def _hand_back(station: Station, worker: str) -> None:
    """End this worker's attempts that nothing runs any more; that they were cut off is not their fault."""
    hermes = await station.opened()
    for task in await hermes.store.tasks(status=TaskStatus.RUNNING, limit=HANDED_BACK):
        if task.worker == worker:
            await hermes.journal.append(decide(task, Interrupted()))


def _stop_soon(worker: Any, requests: list[Any]) -> None:
    worker.consumer.call_soon(_stop, worker.pool, requests)


def _stop(pool: Any, requests: Iterable[Any]) -> None:
    """Stop tasks, on the worker's main thread, in a way that lets them clean up."""
    for request in requests:
        if request in state.active_requests:
            request.terminate(pool, signal="SIGUSR1")


def running() -> dict[str, Any]:
    """Return the requests that the pool has accepted, by task id; callable on any thread."""
    references = state.active_requests.data.copy()  # at once: a WeakSet must not change while it is read
    return {request.id: request for reference in references if (request := reference()) is not None}


class LeaseKeeper:
    """Tells the record which tasks this worker still runs, and hears which of them are to end.

    Args:
        hermes: on whose loop this is used.
        worker: the name in the leases.
        lease: seconds.
        stop: stops requests of this worker; nothing is broadcast, for another worker may rightly have them.
    """

    def __init__(self, hermes: Hermes, worker: str, lease: float, stop: Callable[[list[Any]], None]) -> None:
        self._store = hermes.store
        self._worker, self._lease, self._stop = worker, lease, stop
        #: Requests that were not ours at the last renewal: claimed in a moment, or just ended, or lost.
        self._doubtful: set[Any] = set()

    async def renew(self) -> None:
        """Renew the leases of all running tasks; stop those that are cancelled or no longer ours."""
        active = running()
        renewal = await self._store.renew(self._worker, sorted(active), self._lease)
        missing = {active[task_id] for task_id in active.keys() - set(renewal.held)}
        doubtful, self._doubtful = missing & self._doubtful, missing
        lost = [request for request in doubtful if await self._is_lost(request.id)]
        self._end(lost, "it is not ours any more")
        self._end([active[task_id] for task_id in renewal.cancelled], "it is to be cancelled")

    async def _is_lost(self, task_id: str) -> bool:
        """Tell what ended here without our hearing of it from what has not been claimed yet."""
        task = await self._store.load(task_id)
        if task is None or task.status.is_terminal:
            return True
        return task.status is TaskStatus.RUNNING and task.worker != self._worker

    def _end(self, requests: list[Any], why: str) -> None:
        for request in requests:
            logger.warning("task %s is stopped: %s", request.id, why)
        if requests:
            self._stop(requests)


class Caretaker:
    """Lets the janitor sweep, but after an outage gives every worker the time to renew its leases first."""

    def __init__(self, janitor: Janitor, lease: float) -> None:
        self._janitor = janitor
        self._lease = lease
        self._lenient_until = 0.0

    async def sweep(self) -> None:
        """Do one round."""
        try:
            await self._janitor.sweep(lost=time.monotonic() >= self._lenient_until)
        except ServiceError:
            self._lenient_until = time.monotonic() + self._lease
            raise


async def _forever(job: Callable[[], Awaitable[object]], every: float) -> None:
    """Do a job again and again; a server that is away is waited for."""
    away = False
    while True:
        try:
            await job()
            away = False
        except ServiceError as exc:
            logger.log(logging.DEBUG if away else logging.WARNING, "%s", exc)
            away = True
        except Exception:
            logger.exception("a side job of the worker failed; it goes on")
        await asyncio.sleep(every * random.uniform(0.9, 1.1))
