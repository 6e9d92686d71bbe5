"""How the tasks in memory stand, beside what was counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hermes_async.core.metrics import OPEN, Metrics, metrics
from hermes_async.domain.task import Task, TaskStatus


def census(counts: Mapping[str, int], tasks: Iterable[Task], now: float) -> Metrics:
    """Return the metrics at the moment `now`, in Unix seconds."""
    standing = [task for task in tasks if not task.status.is_terminal]
    births = [task.created_at for task in standing if task.status is TaskStatus.QUEUED and not task.attempt]
    return metrics(
        counts,
        open={status: sum(task.status is status for task in standing) for status in OPEN},
        oldest=max(0.0, now - min(births)) if births else None,
    )
