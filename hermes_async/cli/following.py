"""Following one task to its end: from the store, or over a relay."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio

from hermes_async.cli.views import View
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.lifecycle import TARGET, TERMINAL_TYPES
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.relay.client import Gap, RelayClient

T = TypeVar("T")

#: Seconds within which a relay must answer first, and after which a lost one is given up.
FIRST_ANSWER, GIVE_UP = 3.0, 60.0
_PAGE = 500


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


async def wait_here(handle: TaskHandle[Any], view: View) -> Task:
    """Show a task's events until its end, and return its record."""
    with view:
        async with aclosing(_as_generator(handle.events())) as events:
            async for event in events:
                view.show(event)
    return await handle.ended()


@contextmanager
def until_ctrl_c() -> Iterator[anyio.CancelScope]:
    """Cancel the body at Ctrl-C; once is enough, and impatience does not disturb what follows it."""
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        loop.add_signal_handler(signal.SIGINT, scope.cancel)
        yield scope


async def so_far(hermes: Hermes, task: Task, after: int, view: View) -> None:
    """Show the events that a task has had until now."""
    with view:
        while (page := await hermes.store.events(task.session_id, after, _PAGE)).events:
            if page.gap:
                view.gap(*page.gap)
            for event in _of(task.id, page.events):
                view.show(event)
            after = page.events[-1].seq


def _of(task_id: str, events: Sequence[AnyEvent]) -> list[AnyEvent]:
    return [event for event in events if event.task_id == task_id]


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
            async with aclosing(_as_generator(client.follow(task=task_id, after=after))) as items:
                async for item in items:
                    end = _show(item, task_id, view) or end
    return end


def _as_generator(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Return the same: functions that yield are generators, whatever their annotation promises."""
    return cast("AsyncGenerator[T, None]", items)


def _show(item: AnyEvent | Gap, task_id: str, view: View) -> End | None:
    if isinstance(item, Gap):
        view.gap(item.first, item.last)
        known = item.snapshot.get(task_id)
        return End.of_snapshot(known) if known else None
    view.show(item)
    return End.of_event(item) if item.type in TERMINAL_TYPES else None
