"""For which tasks idempotency keys stand, in memory."""

from __future__ import annotations

from collections.abc import Callable, Container

from hermes_async.domain.idempotency import circle_of, rule_of, used_elsewhere, used_otherwise
from hermes_async.domain.task import Task


class MemoryKeys:
    """Keys, each within its circle and for its time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: The task, and until when its key stands for it.
        self._known: dict[tuple[str, str], tuple[str, float]] = {}

    def find(self, task: Task, key: str | None) -> str | None:
        """Return the id of the task for which the key of a new one stands."""
        task_id, until = self._known.get(_place(task, key), ("", 0.0))
        return task_id if until > self._now() else None

    def note(self, task: Task, key: str | None) -> None:
        """Let the key of a new task stand for it."""
        if key:
            self._known[_place(task, key)] = (task.id, self._now() + rule_of(task.birth).ttl)

    def keep(self, alive: Container[str]) -> None:
        """Forget the keys of tasks that are forgotten."""
        self._known = {place: known for place, known in self._known.items() if known[0] in alive}


def same(known: Task, task: Task, key: str | None) -> Task:
    """Return the known task of an idempotency key.

    Raises:
        IdempotencyConflict: its session or its input is another.
    """
    if known.session_id != task.session_id:
        raise used_elsewhere(key or "")
    if _asked(known) != _asked(task):
        raise used_otherwise(key or "", known.id)
    return known


def _place(task: Task, key: str | None) -> tuple[str, str]:
    return circle_of(task.birth), key or ""


def _asked(task: Task) -> tuple[str, object]:
    """Return what was asked for; another agent may have taken over since."""
    return task.birth.options.agent or task.birth.subagent, task.birth.input
