"""What the record must know of a worker process that is to be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from celery import bootsteps

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Task
from hermes_async.worker.bodies import Runners
from hermes_async.worker.pool import AsyncioPool
from hermes_async.worker.signals import killed, note, out_of_time
from hermes_async.worker.station import PATIENCE


class Handover(bootsteps.StartStopStep):  # type: ignore[misc]
    """Settles the attempts that are to blame; the shutdown that follows hands back all others."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin to listen; only a process of the async lane can be spoiled by a task."""
        if isinstance(parent.pool, AsyncioPool):
            parent.pool.on_recycle(partial(settle, parent.app.hermes))


def settle(runners: Runners, jobs: Sequence[tuple[str, bool]]) -> None:
    """Write the end of those that are to blame, before anything can hand them back."""
    for written in [note(runners, task_id, overdue) for task_id, to_blame in jobs if to_blame]:
        written.result(PATIENCE)


def overdue(task: Task) -> AnyEvent | None:
    """Return what follows when an attempt could not be ended: it was cancelled, or is out of time."""
    return killed(task) if task.cancel_requested else out_of_time(task)
