"""What a task's body cannot know, Celery's signals tell: the hard limit, a kill, a task without a body."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery import Celery, signals

from hermes_async.core.journal import Journal
from hermes_async.domain.events import AnyEvent, FailedData, task_event
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import Raised, decide
from hermes_async.domain.task import Task
from hermes_async.worker.bodies import Runners

logger = logging.getLogger("hermes.worker")

_Verdict = Callable[[Task], AnyEvent | None]


def listen(app: Celery, runners: Runners) -> None:
    """Write into the record what the signals say. Handlers only start the writing: they must not block."""

    def note(task_id: str, verdict: _Verdict) -> None:
        station = runners.station()
        station.start(_write, station.hermes.journal, task_id, verdict)

    def on_failure(task_id: str, exception: BaseException, **_: Any) -> None:
        if isinstance(exception, TimeLimitExceeded):
            note(task_id, out_of_time)

    def on_revoked(request: Any, terminated: bool, signum: Any, **_: Any) -> None:
        if terminated and signum in (signal.SIGKILL, "SIGKILL", "KILL"):
            note(request.id, killed)

    def on_unknown(name: str, id: str, **_: Any) -> None:
        note(id, unknown)

    signals.task_failure.connect(on_failure, weak=False)
    signals.task_revoked.connect(on_revoked, weak=False)
    signals.task_unknown.connect(on_unknown, weak=False)
    signals.worker_process_shutdown.connect(lambda **_: runners.close_child(), weak=False)


async def _write(journal: Journal, task_id: str, verdict: _Verdict) -> None:
    task = await journal.store.load(task_id)
    if task is None or task.status.is_terminal:
        return
    event = verdict(task)
    if event is not None:
        await journal.insist(event)


def out_of_time(task: Task) -> AnyEvent | None:
    """Return what follows when the pool had to end an attempt that did not end in time by itself."""
    limit = task.birth.options.timeout or 0.0
    error = ErrorInfo(type="TimeLimitExceeded", message=f"did not stop when its {limit:g} s were over")
    return decide(task, Raised(error, Reason.TIMEOUT, kinds=("TimeoutError",)))


def killed(task: Task) -> AnyEvent | None:
    """Return what follows when the pool killed an attempt because somebody asked for it."""
    return task_event(task, "task.cancelled") if task.cancel_requested else None


def unknown(task: Task) -> AnyEvent | None:
    """Return what follows when the worker has no such agent."""
    message = f"no worker of this queue knows the agent {task.agent!r}; do all run the same agents.yaml?"
    error = ErrorInfo(type="UnknownAgent", message=message)
    return task_event(task, "task.failed", FailedData(reason=Reason.ERROR, error=error))
