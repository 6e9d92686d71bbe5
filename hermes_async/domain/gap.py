"""What a reader gets in place of events that are no longer kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from hermes_async.domain.task import Task


@dataclass(frozen=True)
class Gap:
    """Events `first` to `last` were trimmed from the log; the snapshot says what became of the tasks.

    The snapshot's tasks (`Task.as_json()`, keyed by id) are as they are once every event up to `as_of` is
    applied, so what follows with a `seq` up to that is in it already.
    """

    first: int
    last: int
    as_of: int
    snapshot: dict[str, dict[str, Any]]
    #: So that who looks at the `type` of what comes next need not look at its class.
    type: Literal["gap"] = "gap"

    @classmethod
    def of(cls, missing: tuple[int, int], as_of: int, tasks: Iterable[Task]) -> Gap:
        """Return the gap that stands for the events from the first to the last of `missing`."""
        return cls(*missing, as_of, {task.id: task.as_json() for task in tasks})

    @property
    def seq(self) -> int:
        """Where to go on, as of any event."""
        return self.last
