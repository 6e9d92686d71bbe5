"""The place of a running attempt, given back while it waits for its children or for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import anyio

from hermes_async.core.hint import Hint
from hermes_async.core.journal import patiently
from hermes_async.core.limits import Limits
from hermes_async.core.ports import Store
from hermes_async.domain.task import Task


class StepOut(Protocol):
    """Steps out of the slot of a worker's pool for as long as the context lasts."""

    def __call__(self, *, halted: bool) -> AbstractAsyncContextManager[None]:
        """Return the context; `halted`: the limits that the pool keeps do not count meanwhile."""
        ...


@asynccontextmanager
async def stay(*, halted: bool) -> AsyncIterator[None]:
    """Where there is no pool, there is no slot to step out of."""
    yield


#: What waits, and may step aside for it.
Waiting = Callable[[], AbstractAsyncContextManager[None]]

#: Seconds after which somebody who waits for a place asks again without having been nudged.
ASK_EVERY = 5.0


class Aside:
    """Lets others run while an attempt only waits, so that no depth of nesting can fill a small pool.

    Several branches of one attempt may wait at once: it is aside from the first until the last goes on.

    Args:
        task: the claimed task.
        store: where its place among the limits is kept.
        limits: a task that waits is not idle.
        step_out: gives back the slot of the worker's pool.
    """

    def __init__(self, task: Task, store: Store, limits: Limits, step_out: StepOut = stay) -> None:
        #: The agent is done: the attempt needs no place any more, and has no more children.
        self.is_over = False
        self._task = task
        self._store = store
        self._limits = limits
        self._step_out = step_out
        self._waiting = 0
        self._is_out = False
        self._turn = asyncio.Lock()
        #: Around the wait of a branch that stands in line for the place.
        self._in_line: anyio.CancelScope | None = None
        self._return: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def __call__(self, *, halted: bool = False) -> AsyncIterator[None]:
        """Be aside for as long as the context lasts; `halted`: the time of the attempt stands still."""
        self._limits.pause(True)
        if halted:
            self._limits.halt(True)
        try:
            async with self._step_out(halted=halted):
                self._waiting += 1
                if self._in_line is not None:
                    self._in_line.cancel()
                try:
                    await self._leave()
                    yield
                finally:  # in the background: whoever is cancelled and cleans up must not wait for a place
                    self._waiting -= 1
                    self._return = asyncio.create_task(
                        self._come_back(), name=f"hermes-aside {self._task.id}"
                    )
                await asyncio.shield(self._return)
        finally:
            self._limits.pause(self._waiting > 0)
            if halted:
                self._limits.halt(False)

    async def _leave(self) -> None:
        async with self._turn:
            if not self._is_out:
                self._is_out = True  # first: who is cancelled now does not know whether it was done
                await self._give_back()

    async def _come_back(self) -> None:
        async with self._turn:
            if self._is_out and not self._waiting and not self.is_over:
                async with listening(self._store, self._task) as hint:
                    self._is_out = not await self._has_place(hint)

    async def _has_place(self, hint: Hint) -> bool:
        """Wait for a place; False: another branch of the attempt waits for a child by now."""
        while not self._waiting:
            answer = await patiently(lambda: self._store.step_back(self._task), f"{self._task.id} back")
            if (
                answer is not False
            ):  # or it is not our attempt any more, and whoever runs it is told otherwise
                return True
            if not self._waiting:  # still: another branch that waits for a child ends the wait for the place
                with anyio.CancelScope() as self._in_line:
                    await hint.wait(ASK_EVERY)
        await self._give_back()  # it stood in line, or has the place by now
        return False

    async def _give_back(self) -> None:
        await patiently(lambda: self._store.step_aside(self._task), f"{self._task.id} aside")


@asynccontextmanager
async def listening(store: Store, task: Task) -> AsyncIterator[Hint]:
    """Hear nudges about a task; a store that is away is waited for."""
    async with AsyncExitStack() as stack:
        yield await patiently(
            lambda: stack.enter_async_context(store.watch_task(task.id)), f"the wait of {task.id}"
        )
