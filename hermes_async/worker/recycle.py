"""A worker process that a task has spoiled must be replaced: when, and how it ends."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from celery.worker import state

from hermes_async.worker.tracer import Job

__all__ = ["EXIT_CODE", "Recycling", "Rules"]

logger = logging.getLogger(__name__)

#: The exit code of a process that wants to be replaced: EX_TEMPFAIL, "try again".
EXIT_CODE = 75
#: A process that has not ended in an orderly way by then, in seconds, is ended at once.
PATIENCE = 15.0

#: Is told, for every task that had begun, its id and whether it is to blame.
Callback = Callable[[Sequence[tuple[str, bool]]], object]


@dataclass(frozen=True)
class Rules:
    """When a worker process must be replaced."""

    #: The most coroutines and threads that do not end although they were abandoned.
    max_zombies: int = 10
    #: How long, in seconds, a task that is out of time, or is to be killed, may block the loop.
    grace: float = 5.0

    def blocked(self, job: Job, seconds: float) -> str | None:
        """Return why a job that blocks the loop is the end of the process, or None."""
        if seconds < self.grace:
            return None
        if job.to_be_killed:
            return f"task {job.name}[{job.task_id}] is to be killed, and blocks the event loop"
        if job.limit and job.age >= job.limit + self.grace:
            return f"task {job.name}[{job.task_id}] blocks the event loop beyond its limit of {job.limit:g} s"
        return None

    def zombies(self, count: int, job: Job) -> str | None:
        """Return why one more job that does not end is the end of the process, or None."""
        if job.to_be_killed:
            return f"task {job.name}[{job.task_id}] is to be killed, and does not end"
        if count > self.max_zombies:
            return f"{count} tasks do not end although they were cancelled"
        return None


class Recycling:
    """Ends the worker so that its supervisor starts another, once.

    Celery's own cold shutdown cancels what still runs and gives the messages back to the broker. Without a
    consumer there is no worker to end, and it is only said.
    """

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self._leave = leave
        self._lock = threading.Lock()
        self._callbacks: list[Callback] = []
        self.began = False

    def listen(self, callback: Callback) -> None:
        """Call this, off the loop's thread, before the process ends."""
        self._callbacks.append(callback)

    def begin(self, why: str, jobs: Collection[Job], culprits: Iterable[Job], consumer: Any) -> None:
        """Begin, in a thread of its own."""
        with self._lock:
            if self.began:
                return
            self.began = True
        if consumer is not None:
            guard = threading.Timer(PATIENCE, self._leave, (EXIT_CODE,))
            guard.daemon = True
            guard.start()
        to_blame = set(culprits)
        args = (why, [(job.task_id, job in to_blame) for job in jobs], consumer)
        threading.Thread(target=self._run, args=args, name="celery-recycle", daemon=True).start()

    def _run(self, why: str, jobs: Sequence[tuple[str, bool]], consumer: Any) -> None:
        logger.critical("This worker process is to be replaced: %s", why)
        if consumer is not None:
            consumer.call_soon(_stop_consuming, consumer)
        for callback in self._callbacks:
            self._call(callback, jobs)
        if consumer is not None:
            # After what is due already: the ack of a message whose task is out of time is.
            consumer.call_soon(consumer.call_soon, _terminate, consumer)

    @staticmethod
    def _call(callback: Callback, jobs: Sequence[tuple[str, bool]]) -> None:
        try:
            callback(jobs)
        except Exception:
            logger.exception("%r could not hear of the end of this process", callback)


def _stop_consuming(consumer: Any) -> None:
    if consumer.task_consumer is not None:
        consumer.task_consumer.cancel()


def _terminate(consumer: Any) -> None:
    consumer.controller.exitcode = EXIT_CODE
    state.should_terminate = EXIT_CODE
