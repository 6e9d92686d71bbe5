"""A Celery task on the asyncio pool: its body may be awaited, and it is the current one where that runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import copy_context
from functools import partial, wraps
from typing import Any

from celery._state import _task_stack
from celery.app.trace import build_tracer
from celery.utils.threads import LocalStack, get_ident
from greenlet import getcurrent

from hermes_async.worker.greenlets import Tracer
from hermes_async.worker.tracer import current_job

__all__ = ["adopt", "adopted", "rebuild_tracer", "watch_task_stack"]


def adopted(task: Any) -> bool:
    """Whether a Celery task has been made ready for this pool."""
    return hasattr(_body(task), "_bridged")


def adopt(task: Any) -> None:
    """Make a Celery task ready: its body may be awaited, and finds its request wherever it runs."""
    task.request_stack = _Requests(task.name)
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"  # autoretry_for has wrapped the body
    setattr(task, name, _bridge(_body(task)))


class _Requests(LocalStack):  # type: ignore[misc]
    """A task's requests, by job; the one of a job that runs without Celery's tracer is never pushed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.__ident_func__ = _identity
        self._name = name

    @property
    def top(self) -> Any:
        """The request of whoever asks."""
        job = current_job()
        return super().top or (job.request if job and job.name == self._name else None)


def rebuild_tracer(task: Any, hostname: str | None) -> None:
    """A task that was registered after the worker started has a tracer without the bridge."""
    task.__trace__ = build_tracer(task.name, task, task.app.loader, hostname, app=task.app)


def watch_task_stack() -> None:
    """Let `current_task` follow the job instead of the thread."""
    _task_stack.__ident_func__ = _identity


def _identity() -> Any:
    return current_job() or get_ident()


def _body(task: Any) -> Any:
    return getattr(task, "_orig_run", task.run)


def _bridge(body: Callable[..., Any]) -> Callable[..., Any]:
    is_async = inspect.iscoroutinefunction(body)

    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        here, job = getcurrent(), current_job()
        if job is None or not isinstance(here, Tracer):
            return body(*args, **kwargs)  # called directly, not by a worker
        if job.failure is not None:
            raise job.failure
        if is_async:
            return here.parent.switch(body(*args, **kwargs))
        result = here.parent.switch(
            job.pool.run_in_thread(partial(copy_context().run, body, *args, **kwargs))
        )
        return here.parent.switch(result) if inspect.isawaitable(result) else result

    run._bridged = True  # type: ignore[attr-defined]
    return run
