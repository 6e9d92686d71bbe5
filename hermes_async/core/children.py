"""The child tasks of one attempt, which do not outlive it: it ends after them, or they are asked to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hermes_async.core.context import Delegate
from hermes_async.core.handle import TaskHandle
from hermes_async.core.journal import patiently
from hermes_async.domain.errors import UnknownTask


class Children:
    """Dispatches on behalf of an attempt, and remembers what it has dispatched."""

    def __init__(self, delegate: Delegate) -> None:
        self._delegate = delegate
        self._handles: list[TaskHandle[Any]] = []

    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start one."""
        handle = await self._delegate.dispatch(subagent, *args, **kwargs)
        self._handles.append(handle)
        return handle

    async def dispatch_many(
        self, subagent: Any, inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[Any]]:
        """Start many of a kind."""
        handles = await self._delegate.dispatch_many(subagent, inputs)
        self._handles += handles
        return handles

    async def ended(self) -> None:
        """Wait until all have ended, however they end."""
        await self._with_each(TaskHandle.ended)

    async def stop(self) -> None:
        """Ask those that have not ended to stop, and what they have dispatched in turn."""
        await self._with_each(
            lambda handle: patiently(handle.cancel, f"the end of {handle.id}, whose parent failed")
        )

    async def _with_each(self, do: Callable[[TaskHandle[Any]], Awaitable[Any]]) -> None:
        alive = [handle for handle in self._handles if not handle.has_ended]
        await asyncio.gather(*(_known(do(handle)) for handle in alive))


async def _known(doing: Awaitable[Any]) -> None:
    with suppress(UnknownTask):  # it ended so long ago that it was forgotten
        await doing
