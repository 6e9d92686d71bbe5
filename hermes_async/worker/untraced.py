"""What Celery's tracer does beside running a body: who would miss it, and the line that it logs."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from celery import signals
from celery.app import trace
from celery.app.task import Task

__all__ = ["is_watched", "log_success"]

#: What the tracer calls or sends before and after a body that ends well.
HOOKS = ("__call__", "before_start", "on_success", "after_return")
SIGNALS = (signals.task_prerun, signals.task_postrun, signals.task_success)


def is_watched(task: Any) -> bool:
    """Return whether anybody sees how Celery traces a task that ends well."""
    wrapped = hasattr(task.__trace__, "__wrapped__")  # as those do who observe performance
    return wrapped or any(signal.receivers for signal in SIGNALS) or _has_hooks(task)


@cache
def _has_hooks(task: Any) -> bool:
    own = type(task).__mro__[: type(task).__mro__.index(Task)]
    return any(hook in vars(cls) for cls in own for hook in HOOKS)


def log_success(task_id: str, name: str, value: object, seconds: float) -> None:
    """Log what the tracer logs of a task that ended well."""
    if trace.logger.isEnabledFor(logging.INFO):
        said = {"id": task_id, "name": name, "return_value": repr(value), "runtime": seconds}
        trace.info(trace.LOG_SUCCESS, {**said, "args": "()", "kwargs": "{}"})
