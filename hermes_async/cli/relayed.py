"""Following one task over a relay, to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from hermes_async.cli.following import as_generator
from hermes_async.cli.views import View
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TARGET, TERMINAL_TYPES
from hermes_async.domain.task import TaskStatus
from hermes_async.relay.client import RelayClient

#: Seconds within which a relay must answer first, and after which a lost one is given up.
FIRST_ANSWER, GIVE_UP = 3.0, 60.0


@dataclass(frozen=True)
class End:
    """How a task ended, as far as its followers are told."""

    status: TaskStatus
    output: Any = None
    error: ErrorInfo | None = None

    @classmethod
    def of_event(cls, event: AnyEvent) -> End:
        """Return what a terminal event says."""
        data = event.data
        return cls(TARGET[event.type], getattr(data, "output", None), getattr(data, "error", None))

    @classmethod
    def of_snapshot(cls, task: dict[str, Any]) -> End | None:
        """Return what a snapshot says, if the task has ended in it."""
        status = TaskStatus(task["status"])
        error = ErrorInfo(**task["error"]) if task["error"] else None
        return cls(status, task["output"], error) if status.is_terminal else None


async def over_relay(url: str, token: Callable[[], str], task_id: str, after: int, view: View) -> End | None:
    """Show a task's events as a relay sends them, and return its end (None: it lies before `after`).

    Raises:
        RelayUnavailable: none answers, or the one that did has gone for too long.
        Unauthorized: it does not accept the token.
        UnknownTask: there is no such task, or the token does not allow it.
    """
    end = None
    async with RelayClient(url, token, timeout=FIRST_ANSWER, give_up_after=GIVE_UP) as client:
        with view:
            async with aclosing(as_generator(client.follow(task=task_id, after=after))) as items:
                async for item in items:
                    end = _show(item, task_id, view) or end
    return end


def _show(item: AnyEvent | Gap, task_id: str, view: View) -> End | None:
    if isinstance(item, Gap):
        view.gap(item.first, item.last)
        known = item.snapshot.get(task_id)
        return End.of_snapshot(known) if known else None
    view.show(item)
    return End.of_event(item) if item.type in TERMINAL_TYPES else None
