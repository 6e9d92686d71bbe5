"""The child tasks of one attempt, which do not outlive it: it ends after them, or they are asked to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

from pydantic import JsonValue

from hermes_async.core.agent import Subagent
from hermes_async.core.dispatch import Delegate
from hermes_async.core.handle import TaskHandle, unknown
from hermes_async.core.journal import patiently
from hermes_async.core.page import Page
from hermes_async.domain.errors import UnknownTask, UnreadableTask
from hermes_async.domain.events import UNREADABLE, AnyEvent, end_of
from hermes_async.domain.lifecycle import TERMINAL_TYPES, unread
from hermes_async.domain.task import Task, TaskStatus

Handles = list[TaskHandle[Any]]

#: Seconds that the first news wait for others.
COALESCE: Final = 0.25


class Children:
    """Dispatches on behalf of an attempt, and remembers what it has dispatched.

    A dispatch goes on when whoever asked for it is cancelled: else there might be a child that nobody knows.
    Nobody wants it either, so it is asked to stop.
    """

    def __init__(self, delegate: Delegate) -> None:
        self._delegate = delegate
        self._handles: Handles = []
        self._ids: set[str] = set()
        #: Those of them of which `news` tells.
        self._told: set[str] = set()
        #: Dispatches, and what follows those that were cut short.
        self._underway: set[asyncio.Task[Any]] = set()
        self._hearing = Hearing(delegate)

    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start one."""
        return await self._born(self._delegate.dispatch(subagent, *args, **kwargs))

    async def dispatch_many(self, subagent: Any, inputs: Sequence[Mapping[str, Any]]) -> Handles:
        """Start many of a kind."""
        return await self._all_born(self._delegate.dispatch_many(subagent, inputs))

    def subagents(self) -> Sequence[Subagent[..., Any]]:
        """Return those that the agent may name."""
        return self._delegate.subagents()

    async def submit(
        self, subagent: str, input: str | Mapping[str, JsonValue], *, idempotency_key: str | None = None
    ) -> TaskHandle[Any]:
        """Start one from data, by the name of its subagent; `news` tells of it."""
        own = idempotency_key and self._delegate.own(idempotency_key)
        async with self._hearing.birth():
            handle = await self._born(self._delegate.start(subagent, input, idempotency_key=own))
            if handle.id not in self._told:
                self._told.add(handle.id)
                self._hearing.expect(handle)
        return handle

    async def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return the handle of a task that this attempt has dispatched."""
        for handle in self._handles:
            if handle.id == task_id:
                return handle
        raise unknown(task_id)

    async def tasks(self, *, status: TaskStatus | None = None, limit: int = 50) -> Sequence[Task]:
        """Return what this attempt has dispatched, newest first."""
        newest = self._handles[::-1] if status else self._handles[: -limit - 1 : -1]
        found = await asyncio.gather(*map(_readable, newest))
        return [task for task in found if task and status in (None, task.status)][:limit]

    async def ack(self, *seqs: int) -> int:
        """Leave events out of the news."""
        return self._hearing.ack(*seqs)

    async def news(self) -> Sequence[AnyEvent]:
        """Wait, without a slot, until a task of `submit` has ended or asks something; return what is new.

        Nothing is returned when all have ended and that was told.
        """
        return await self._hearing.news()

    async def ended(self) -> None:
        """Wait until all have ended, however they end, and those that were dispatched meanwhile, too."""
        await self.known()
        while alive := [handle for handle in self._handles if not handle.has_ended]:
            await asyncio.gather(*map(_end, alive))
            await self.known()

    async def known(self) -> None:
        """Wait until no dispatch is under way any more."""
        while self._underway:
            await asyncio.wait(self._underway)

    async def _born(self, birth: Coroutine[Any, Any, TaskHandle[Any]]) -> TaskHandle[Any]:
        async def one() -> Handles:
            return [await birth]

        [handle] = await self._all_born(one())
        return handle

    async def _all_born(self, birth: Coroutine[Any, Any, Handles]) -> Handles:
        writing: asyncio.Task[Handles] = self._begin(birth)
        try:
            handles: Handles = await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._begin(self._unwanted(writing))
            raise
        self._note(handles)
        return handles

    async def _unwanted(self, writing: asyncio.Task[Handles]) -> None:
        await asyncio.wait({writing})
        if writing.cancelled() or writing.exception():
            return
        for handle in self._note(writing.result()):
            await _forgiving(patiently(handle.cancel, f"the end of {handle.id}, which nobody waits for"))

    def _note(self, handles: Handles) -> Handles:
        """Remember children; return those that are new."""
        new = [handle for handle in handles if handle.id not in self._ids]
        self._handles += new
        self._ids.update(handle.id for handle in new)
        return new

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)
        return task


class Hearing:
    """Reads in the session's log what has come of tasks, each end and each open question once."""

    def __init__(self, delegate: Delegate) -> None:
        self._delegate = delegate
        #: How far the log was read; None: nobody was expected yet.
        self._read: int | None = None
        #: Each is set when a task that is being born is expected, or will not be.
        self._births: set[asyncio.Event] = set()
        #: Those whose end was not read yet.
        self._alive: dict[str, TaskHandle[Any]] = {}
        self._acked: set[int] = set()
        #: What was read and not returned yet, by task.
        self._found: dict[str, AnyEvent] = {}

    @asynccontextmanager
    async def birth(self) -> AsyncIterator[None]:
        """Listen from now on: what is read meanwhile may be the end of a task that is expected only later."""
        if self._read is None:
            seq = await patiently(self._delegate.last_seq, "a dispatch")
            self._read = seq if self._read is None else self._read
        over = asyncio.Event()
        self._births.add(over)
        try:
            yield
        finally:
            self._births.discard(over)
            over.set()

    def expect(self, handle: TaskHandle[Any]) -> None:
        """Listen for a task whose birth is not over."""
        self._alive[handle.id] = handle

    def ack(self, *seqs: int) -> int:
        """Skip events; return how many were not skipped before."""
        before = len(self._acked)
        self._acked.update(seqs)
        return len(self._acked) - before

    async def news(self) -> list[AnyEvent]:
        """Wait for an end or a question, and a little for more of them."""
        await self._listen(wait=True)
        if self._found and self._alive:
            await asyncio.sleep(COALESCE)
            await self._listen(wait=False)
        news, self._found = [*self._found.values()], {}
        return news

    async def _listen(self, *, wait: bool) -> None:
        """Read what is there and, to wait, on until there is news."""
        async with aclosing(self._delegate.pages(self._read or 0)) as pages:
            while self._alive:
                page = await anext(pages)
                for birth in tuple(self._births):  # later ones are on later pages
                    await birth.wait()
                for event in [*await self._hidden(page), *page.events]:
                    self._note(event)
                if page.events:
                    self._read = page.events[-1].seq
                elif self._found or not wait:
                    return

    def _note(self, event: AnyEvent) -> None:
        """Keep the last news of a task; a question that was answered meanwhile is none."""
        task_id = event.task_id or ""
        if task_id not in self._alive:
            return
        if event.type in (*TERMINAL_TYPES, "task.resumed", "task.input_required"):
            self._found.pop(task_id, None)
            if event.type != "task.resumed" and event.seq not in self._acked:
                self._found[task_id] = event
        if event.type in TERMINAL_TYPES:
            del self._alive[task_id]

    async def _hidden(self, page: Page) -> list[AnyEvent]:
        """Return the ends that may be hidden in a gap of the log, or in what cannot be read."""
        if page.gap is None and all(event.type != UNREADABLE for event in page.events):
            return []
        ends = await asyncio.gather(*map(_end_in_record, self._alive.values()))
        return [end for end in ends if end]


async def _end(handle: TaskHandle[Any]) -> None:
    await _forgiving(handle.ended())
    handle.has_ended = True


async def _forgiving(doing: Awaitable[Any]) -> None:
    with suppress(UnknownTask, UnreadableTask):  # it was forgotten, or nobody can tell how it ended
        await doing


async def _readable(handle: TaskHandle[Any]) -> Task | None:
    with suppress(UnreadableTask):
        return await handle.task()
    return None


async def _end_in_record(handle: TaskHandle[Any]) -> AnyEvent | None:
    """Return the end of a task, if it has ended; of one that cannot be read, that it is of no use."""
    try:
        task = await handle.task()
    except UnreadableTask as exc:
        task = exc.known
        if task.status is TaskStatus.COMPLETED:
            return unread(exc)
    return end_of(task) if task.status.is_terminal else None
