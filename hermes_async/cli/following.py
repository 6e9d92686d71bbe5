"""Following one task in the store: to its end, or as far as it has come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar, cast

import anyio

from hermes_async.cli.views import View
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.domain.task import Task

T = TypeVar("T")

_PAGE = 500


async def wait_here(handle: TaskHandle[Any], view: View) -> Task:
    """Show a task's events until its end, and return its record."""
    with view:
        async with aclosing(as_generator(handle.events())) as events:
            async for item in events:
                if isinstance(item, Gap):
                    view.gap(item.first, item.last)
                else:
                    view.show(item)
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
        after = max(after, await hermes.store.born(task.id) - 1)
        while (page := await hermes.store.events(task.session_id, after, _PAGE)).events:
            if page.gap:
                view.gap(*page.gap)
            for event in _of(task.id, page.events):
                view.show(event)
            after = page.events[-1].seq


def _of(task_id: str, events: Sequence[AnyEvent]) -> list[AnyEvent]:
    return [event for event in events if event.task_id == task_id]


def as_generator(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Return the same: functions that yield are generators, whatever their annotation promises."""
    return cast("AsyncGenerator[T, None]", items)
