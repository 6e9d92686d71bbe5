"""The pool of the process lane: Celery's prefork, which never takes a child with a task for an idle one."""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class Children(AsynPool):  # type: ignore[misc]
    """The processes; each is a slot."""

    @property
    def busy(self) -> int:
        """How many have a task."""
        return sum(map(self._has_task, self._pool))

    def _worker_active(self, child: Any) -> bool:
        """Tell whom a shrinking pool must let live; Celery forgets who was handed a task this very moment."""
        is_starting = child.inqW_fd not in self._all_inqueues
        return is_starting or self._has_task(child)

    def _has_task(self, child: Any) -> bool:
        return any(job._write_to is child for job in tuple(self._cache.values()))


class PreforkPool(TaskPool):  # type: ignore[misc]
    """Celery's pool with these children."""

    Pool = Children

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "max-concurrency": self.num_processes,
            "running": self._pool.busy,
        }
