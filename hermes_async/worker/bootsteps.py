"""The worker's side jobs, on a thread of their own: leases are renewed, what was lost is repaired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from celery import bootsteps
from celery.worker import state

from hermes_async.core.hermes import Hermes
from hermes_async.core.janitor import Swept
from hermes_async.core.ports import Store
from hermes_async.core.records import seen
from hermes_async.domain.errors import ServiceError, StoreDamaged
from hermes_async.domain.events import task_event
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import Interrupted, decide
from hermes_async.domain.task import BEGUN, Lane, TaskStatus
from hermes_async.worker.bodies import Runners
from hermes_async.worker.lanes import lane_served
from hermes_async.worker.station import PATIENCE, Station

logger = logging.getLogger("hermes.worker")

#: Stops requests of this worker with a signal.
EndRequests = Callable[[list[Any], str], None]

#: Seconds between two rounds of the janitor, and between two prunings.
SWEEP_EVERY, PRUNE_EVERY = 0.5, 600.0
#: Seconds after which another worker's janitor sweeps when this one does not.
LEAD_FOR = 2.0
#: Seconds between two looks of a stopping worker whether a task of its own waits for an answer.
RELEASE_EVERY = 0.5
#: Seconds that a task has to end by itself once it is to be cancelled; then it is killed.
CANCEL_GRACE = 10.0
#: Failures that somebody else has written while this worker may still run the task. Any other end was written
#: by the task itself: its process is free, and a signal would hit whatever it does next.
ENDED_BY_OTHERS = frozenset({Reason.WORKER_LOST, Reason.TOTAL_TIMEOUT})
#: The most tasks that a stopping worker looks through for its own.
HANDED_BACK = 10_000


class SideJobs(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the side jobs; after the pool, so that no child inherits them."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin; a Redis that is away is waited for in the background."""
        runners: Runners = parent.app.hermes
        station = runners.station()
        self._lane = lane_served(parent)
        station.start(_side_jobs, station, runners, partial(_end_soon, parent))
        self._enlisting = station.start(_enlist, station, partial(self._enlist, parent), runners.lease / 3)

    def stop(self, parent: Any) -> None:
        """From here on this worker takes nothing more, so the gate should not count on it."""
        runners: Runners = parent.app.hermes
        station = runners.station()
        self._enlisting.cancel()
        station.start(_withdraw, station, runners.worker, self._lane)

    async def _enlist(self, parent: Any, store: Store) -> None:
        runners: Runners = parent.app.hermes
        known = [*filter(runners.registry.can_run, runners.registry)]
        await store.enlist(runners.worker, self._lane, slots_of(parent), runners.lease, known)


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


class Release(bootsteps.StartStopStep):  # type: ignore[misc]
    """When the worker stops, its tasks go to another whose wait may have no end, or that take too long.

    Nobody knows when an answer comes, and a child does not begin while no worker of its lane takes anything.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Nothing yet."""

    def stop(self, parent: Any) -> None:
        """Begin, before the pool waits for its tasks to end, and go on: they may ask, too."""
        runners: Runners = parent.app.hermes
        station = runners.station()
        station.start(_release, station, runners.worker, parent.pool)
        if runners.grace is not None:
            station.start(_cut_off, station, runners, parent.pool, runners.grace)

    def terminate(self, parent: Any) -> None:
        """Do it at once."""
        release(parent.app.hermes)


def release(runners: Runners) -> None:
    """Hand back what waits for an answer, before it is cancelled: that would withdraw its question."""
    station = runners.station()
    try:
        station.start(_release_now, station, runners.worker).result(PATIENCE)
    except Exception as exc:
        logger.warning("what waits for an answer here asks again elsewhere: %r", exc)


async def _release(station: Station, worker: str, pool: Any) -> None:
    await asyncio.gather(
        station.forever(partial(_release_now, station, worker), RELEASE_EVERY),
        station.forever(partial(_release_parents, station, worker, pool), RELEASE_EVERY),
    )


async def _release_now(station: Station, worker: str) -> None:
    """Hand back the attempts that wait for an answer; that wakes them up, and ends them."""
    hermes = await station.opened()
    for task in await hermes.store.load_all(running()):
        if task.status is TaskStatus.INPUT_REQUIRED and task.worker == worker:
            await hermes.journal.end(task, decide(task, Interrupted()))


async def _release_parents(station: Station, worker: str, pool: Any) -> None:
    """Hand back the attempts that wait for children that nobody can begin; these end with them."""
    pids, hermes = pool.pids_aside, await station.opened()
    aside = [task_id for task_id, request in running().items() if request.worker_pid in pids]
    tasks = await hermes.store.load_all(aside)
    waiting = [task for task in tasks if task.status is TaskStatus.RUNNING and task.worker == worker]
    slots = (await hermes.store.traffic()).slots if waiting else {}
    begins_here = _by_id(state.reserved_requests).keys()
    in_vain = set[str | None]()
    for session_id in {task.session_id for task in waiting}:
        queued = await hermes.store.tasks(session_id=session_id, status=TaskStatus.QUEUED, limit=HANDED_BACK)
        stuck = [task for task in queued if not slots.get(task.lane) and task.id not in begins_here]
        in_vain |= {task.birth.parent_task_id for task in stuck}
    for task in waiting:
        if task.id in in_vain:
            await hermes.journal.end(task, decide(task, Interrupted()))


async def _cut_off(station: Station, runners: Runners, pool: Any, grace: float) -> None:
    """End what still runs when a stopping worker has no more time."""
    await asyncio.sleep(grace)
    logger.warning("what has not ended within %g s of the stop goes on in another worker", grace)
    try:
        await _hand_back(station, runners.worker)  # first: what is cut off is not at fault
    finally:
        runners.is_cut_off = True
        pool.cut_off()


def slots_of(worker: Any) -> int:
    """Return how many tasks a worker can run at once, when its pool has grown as far as it may."""
    scaler = worker.autoscaler
    return int(scaler.max_concurrency if scaler else worker.pool.num_processes)


async def _side_jobs(station: Station, runners: Runners, end: EndRequests) -> None:
    hermes = await station.opened()
    keeper = LeaseKeeper(hermes, runners.worker, runners.lease, end, runners.interrupted)
    caretaker = Caretaker(hermes, runners.worker, runners.lease)
    await asyncio.gather(
        station.forever(keeper.renew, runners.lease / 3),
        station.forever(caretaker.sweep, SWEEP_EVERY),
        station.forever(partial(hermes.janitor.prune, runners.retention), PRUNE_EVERY),
    )


async def _enlist(station: Station, enlist: Callable[[Store], Awaitable[None]], every: float) -> None:
    hermes = await station.opened()
    await station.forever(partial(enlist, hermes.store), every)


async def _withdraw(station: Station, worker: str, lane: Lane) -> None:
    hermes = await station.opened()
    await hermes.store.enlist(worker, lane, 0, 0.0)


async def _hand_back(station: Station, worker: str) -> None:
    """End this worker's attempts that nothing runs any more; that they were cut off is not their fault."""
    hermes = await station.opened()
    for status in BEGUN:
        for task in await hermes.store.tasks(status=status, limit=HANDED_BACK):
            if task.worker == worker:
                await hermes.journal.end(task, decide(task, Interrupted()))


def _end_soon(worker: Any, requests: list[Any], signal: str) -> None:
    worker.consumer.call_soon(_end, worker.pool, requests, signal)


def _end(pool: Any, requests: Iterable[Any], signal: str) -> None:
    """Stop tasks, on the worker's main thread: SIGUSR1 lets them clean up, SIGKILL does not."""
    for request in requests:
        if (
            request in state.active_requests or signal == "SIGKILL"
        ):  # whoever was interrupted is active no more
            request.terminate(pool, signal=signal)


def running() -> dict[str, Any]:
    """Return the requests that the pool has accepted, by task id; callable on any thread."""
    return _by_id(state.active_requests)


def _by_id(requests: Any) -> dict[str, Any]:
    references = requests.data.copy()  # at once: a WeakSet must not change while it is read
    return {request.id: request for reference in references if (request := reference()) is not None}


class LeaseKeeper:
    """Tells the record which tasks this worker still runs, and hears which of them are to end.

    Args:
        hermes: on whose loop this is used.
        worker: the name in the leases.
        lease: seconds.
        end: stops requests of this worker; nothing is broadcast, for another worker may rightly have them.
        interrupted: requests, by task id, that were told to clean up: Celery forgets them, we do not.
    """

    def __init__(
        self, hermes: Hermes, worker: str, lease: float, end: EndRequests, interrupted: dict[str, Any]
    ) -> None:
        self._journal = hermes.journal
        self._interrupted = interrupted
        self._worker, self._lease, self._end = worker, lease, end
        #: Requests that were not ours at the last renewal: claimed in a moment, or just ended, or lost.
        self._doubtful: set[Any] = set()
        #: Since when tasks are to be cancelled and have not ended.
        self._cancelling: dict[str, float] = {}

    async def renew(self) -> None:
        """Renew the leases of all running tasks; stop those that are cancelled or no longer ours."""
        active, interrupted = running(), self._interrupted.copy()
        requests = {**interrupted, **active}
        renewal = await self._journal.store.renew(self._worker, sorted(requests), self._lease)
        for task_id in interrupted.keys() - set(renewal.held):
            del self._interrupted[task_id]
        missing = {active[task_id] for task_id in active.keys() - set(renewal.held)}
        doubtful, self._doubtful = missing & self._doubtful, missing
        lost = [request for request in doubtful if await self._is_lost(request.id)]
        self._stop(lost, "it is not ours any more")
        await self._cancel({task_id: requests[task_id] for task_id in renewal.cancelled})

    async def _cancel(self, requests: Mapping[str, Any]) -> None:
        """Ask each task once to clean up, in case it has not heard of its cancel; kill who takes too long."""
        now = time.monotonic()
        fresh = requests.keys() - self._cancelling.keys() - self._interrupted.keys()
        self._cancelling = {task_id: self._cancelling.get(task_id, now) for task_id in requests}
        late = [id_ for id_, since in self._cancelling.items() if now - since >= CANCEL_GRACE]
        self._stop([requests[task_id] for task_id in fresh], "it is to be cancelled")
        stubborn = [requests[task_id] for task_id in late if await self._settle(task_id)]
        self._stop(stubborn, f"it did not end within {CANCEL_GRACE:g} s of its cancel", "SIGKILL")

    async def _settle(self, task_id: str) -> bool:
        """Write the end of a task that does not write it itself; False: it just did."""
        try:
            task = await seen(self._journal.store, task_id)
            if task is None or task.worker != self._worker:
                return False
            return await self._journal.end(task, task_event(task, "task.cancelled"))
        except StoreDamaged as exc:  # it is to stop all the same
            logger.error("the end of task %s cannot be written: %s", task_id, exc)
            return True

    async def _is_lost(self, task_id: str) -> bool:
        """Tell what others ended or took over from what has not been claimed yet, or has ended by itself."""
        task = await seen(self._journal.store, task_id)
        if task is None or task.status is TaskStatus.CANCELLED or task.reason in ENDED_BY_OTHERS:
            return True
        return task.status is not TaskStatus.QUEUED and task.worker not in (None, self._worker)

    def _stop(self, requests: list[Any], why: str, signal: str = "SIGUSR1") -> None:
        for request in requests:
            logger.warning("task %s is stopped: %s", request.id, why)
        if requests:
            self._end(requests, signal)


class Caretaker:
    """Sweeps when no other worker does; after an outage it gives all the time to renew their leases first."""

    def __init__(self, hermes: Hermes, worker: str, lease: float) -> None:
        self._janitor = hermes.janitor
        self._store = hermes.store
        self._worker = worker
        self._lease = lease
        self._lenient_until = 0.0
        self._last = Swept()

    async def sweep(self) -> None:
        """Do one round, if it is ours to do."""
        try:
            if await self._store.lead(self._worker, LEAD_FOR, asdict(self._last)):
                self._last = Swept()
                self._last = await self._janitor.sweep(lost=time.monotonic() >= self._lenient_until)
        except ServiceError:
            self._lenient_until = time.monotonic() + self._lease
            raise
