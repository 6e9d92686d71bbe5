"""What the body of a task cannot know, Celery tells: the hard limit, a kill, a dead child, no body at all."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.worker import state
from celery.worker.consumer import consumer
from celery.worker.request import Request

from hermes_async.adapters.celery_queue import task_name
from hermes_async.core.journal import INSIST_EVERY, Journal, patiently
from hermes_async.core.records import seen
from hermes_async.core.runner import is_claimed_in
from hermes_async.domain.errors import ServiceError
from hermes_async.domain.events import AnyEvent, FailedData, task_event
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import Lost, Raised, decide
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.worker.bodies import Runners
from hermes_async.worker.pool import running_pool
from hermes_async.worker.station import Station

logger = logging.getLogger("hermes.worker")

#: Seconds until a task is sent on that is for workers with other code, so that those with old code do not
#: play ball with it.
ON_AFTER = 0.5
#: What follows from what was seen, given the record as it is now; None: nothing.
Verdict = Callable[[Task], AnyEvent | None]


#: The arguments of our tasks, and what Celery would do afterwards.
NOTHING: Any = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


class WatchedRequest(Request):  # type: ignore[misc]
    """Celery's side of a task in the main process: it sees the ends that the body cannot tell of."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        # While it waits, a task is held by little else: what is there twice, or with every task, goes.
        message.headers = self.request_dict
        if message.payload == NOTHING:
            message._decoded_cache = self._Request__payload = NOTHING
            self._args, self._kwargs, _ = NOTHING
            self.request_dict.update(args=self._args, kwargs=self._kwargs)

    @property
    def process(self) -> int | None:
        """The process that runs it and nothing else; in the async lane there is none."""
        return self.worker_pid if running_pool() is None else None

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Somebody stops the task, which may take its time; Celery does not wait for its end."""
        self.app.hermes.interrupted[self.id] = self
        super().terminate(pool, signal)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The pool has interrupted the task, or is about to kill it."""
        super().on_timeout(soft, timeout)
        if not soft:
            note(self.app.hermes, self.id, out_of_time, self.process)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """The task has failed, or its process has died. Celery requeues the message of a dead one."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, TimeLimitExceeded):
            return None  # prefork tells it twice; the other time is `on_timeout`, which says all
        if isinstance(error, WorkerLostError) and self.app.hermes.is_cut_off:
            return None  # another worker has it by now
        if isinstance(error, WorkerLostError) and not state.should_terminate:
            note(self.app.hermes, self.id, lost, self.process)
        return super().on_failure(exc_info, *args, **kwargs)


def listen(runners: Runners) -> None:
    """Write into the record what the signals say."""
    consumer.logger.addFilter(_is_not_told_here)

    def on_revoked(request: Any, terminated: bool, signum: Any, **_: Any) -> None:
        if not terminated:
            note(runners, request.id, discarded)
        elif signum in (signal.SIGKILL, "SIGKILL", "KILL"):
            note(runners, request.id, killed)

    def on_unknown(name: str, id: str, **_: Any) -> None:
        note(runners, id, unknown)

    signals.task_revoked.connect(on_revoked, weak=False)
    signals.task_unknown.connect(on_unknown, weak=False)
    signals.worker_process_shutdown.connect(lambda **_: runners.close_child(), weak=False)


def note(runners: Runners, task_id: str, verdict: Verdict, process: int | None = None) -> Future[None]:
    """Begin to write what follows from what was seen; whoever calls must not be blocked.

    Args:
        runners: this worker's.
        task_id: of which task it was seen.
        verdict: what follows.
        process: the child in which it was seen, where a later attempt may be in another.
    """
    station = runners.station()
    return station.start(_write, station, runners.worker, task_id, verdict, process)


async def _write(
    station: Station, worker: str, task_id: str, verdict: Verdict, process: int | None = None
) -> None:
    try:
        journal = (await station.opened()).journal
        task = await patiently(lambda: seen(journal.store, task_id), f"the end of {task_id}")
        if task is None or task.status.is_terminal:
            return
        is_ours = task.worker == worker and (process is None or is_claimed_in(task, process))
        if task.status.is_begun and not is_ours:
            return  # another attempt by now
        await _settle(journal, task, verdict)
    except Exception:
        logger.exception("task %s: what became of it cannot be written", task_id)


async def _settle(journal: Journal, task: Task, verdict: Verdict) -> None:
    event = verdict(task)
    if event is not None and verdict is unknown and await _is_for_others(journal, task):
        await anyio.sleep(ON_AFTER)
        await _publish(journal, task)
    elif event is not None:
        await patiently(lambda: journal.end(task, event), f"{event.type} of {task.id}")
    elif verdict is out_of_time and task.status is TaskStatus.QUEUED:
        await _publish(journal, task)  # its time was over before it could be claimed, and its message is gone


async def _is_for_others(journal: Journal, task: Task) -> bool:
    """Tell whether a worker with newer code, or with older, knows an agent that is unknown here."""
    traffic = await patiently(journal.store.traffic, f"the way of {task.id}")
    if task.agent in traffic.agents.get(task.lane, ()):
        logger.info("task %s goes on to another worker, which knows the agent %r", task.id, task.agent)
        return True
    logger.error("task %s: %s", task.id, _unknown(task.agent))
    return False


async def _publish(journal: Journal, task: Task) -> None:
    while True:
        try:
            await journal.queue.publish_all([task])
            return
        except ServiceError as exc:
            logger.warning("task %s waits for the broker: %s", task.id, exc)
            await anyio.sleep(INSIST_EVERY)


def out_of_time(task: Task) -> AnyEvent | None:
    """Return what follows when the pool had to end an attempt that did not end in time by itself."""
    if not task.status.is_begun:
        return None
    limit = task.birth.options.timeout or 0.0
    error = ErrorInfo(type="TimeLimitExceeded", message=f"did not stop when its {limit:g} s were over")
    return decide(task, Raised(error, Reason.TIMEOUT, kinds=("TimeoutError",)))


def lost(task: Task) -> AnyEvent | None:
    """Return what follows when the process that ran an attempt died: there is no need to await the lease."""
    return decide(task, Lost()) if task.status.is_begun else None


def killed(task: Task) -> AnyEvent | None:
    """Return what follows when the pool killed an attempt because somebody asked for it."""
    return task_event(task, "task.cancelled") if task.cancel_requested else None


def discarded(task: Task) -> AnyEvent | None:
    """Return what follows when Celery drops the message because somebody has revoked the task."""
    return task_event(task, "task.cancelled") if task.status is TaskStatus.QUEUED else None


def unknown(task: Task) -> AnyEvent | None:
    """Return what follows when the worker has no such agent."""
    if task.status is not TaskStatus.QUEUED:
        return None
    error = ErrorInfo(type="UnknownAgent", message=_unknown(task.agent))
    return task_event(task, "task.failed", FailedData(reason=Reason.ERROR, error=error))


def _unknown(agent: str) -> str:
    cure = "start all workers (or `hermes-async up`) again after agents.yaml or code has changed"
    return f"the worker does not know the agent {agent!r}; {cure}"


def _is_not_told_here(record: logging.LogRecord) -> bool:
    """Drop Celery's page, with all of the message, on an agent that is unknown here: we say it in a line."""
    if record.msg == consumer.UNKNOWN_TASK_ERROR and isinstance(record.args, tuple):
        headers: Any = record.args[2]
        return not str(headers.get("task")).startswith(task_name(""))
    return True
