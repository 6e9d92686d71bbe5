"""What an agent says while it works, coalesced: the last word of each quarter second is written."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable

import anyio
from pydantic import BaseModel

from hermes_async.core.journal import Journal
from hermes_async.domain.errors import StoreDamaged
from hermes_async.domain.events import task_event
from hermes_async.domain.task import Task

#: Seconds between two rounds of writes of one task.
EVERY = 0.25

#: A type of event with its data, or with what makes it when it is written.
_News = tuple[str, BaseModel | Callable[[], BaseModel]]

logger = logging.getLogger("hermes.reporter")


class Reporter:
    """Takes news from any thread at any rate and writes it from the loop on which it was made.

    Args:
        task: the claimed task.
        journal: where the news go.
        on_news: is called at each piece of news, on its thread.
    """

    __slots__ = (
        "_closing",
        "_is_closed",
        "_journal",
        "_lock",
        "_loop",
        "_news",
        "_on_news",
        "_ordinal",
        "_task",
        "_writer",
        "on_lost",
    )

    def __init__(self, task: Task, journal: Journal, on_news: Callable[[], None] = lambda: None) -> None:
        #: Called when the record refuses the news: the attempt is somebody else's by now.
        self.on_lost: Callable[[], None] = lambda: None
        self._on_news = on_news
        self._task = task
        self._journal = journal
        self._ordinal = 0
        self._lock = threading.Lock()
        self._news: dict[str, _News] = {}
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        #: There is one only while there is news: most tasks never say anything.
        self._writer: asyncio.Task[None] | None = None
        self._closing: asyncio.Event | None = None

    def tell(self, key: str, type_: str, data: BaseModel | Callable[[], BaseModel]) -> None:
        """Note a piece of news; an unwritten one of the same key is replaced. Never blocks."""
        self._on_news()
        with self._lock:
            if self._is_closed:  # a thread that nobody could stop goes on talking
                return
            was_empty = not self._news
            self._news.pop(key, None)
            self._news[key] = (type_, data)
        if was_empty:
            self._loop.call_soon_threadsafe(self._begin)

    async def close(self) -> None:
        """Write what is left and stop."""
        with self._lock:
            self._is_closed = True
        if self._closing is not None and self._writer is not None:
            self._closing.set()
            await asyncio.wait({self._writer})
        await self._write()

    def _begin(self) -> None:
        if self._is_closed or (self._writer is not None and not self._writer.done()):
            return
        self._closing = asyncio.Event()
        self._writer = asyncio.create_task(self._run(), name=f"hermes-reporter {self._task.id}")

    async def _run(self) -> None:
        assert self._closing is not None
        while self._news:
            await self._write()
            await self._pause(self._closing)

    @staticmethod
    async def _pause(closing: asyncio.Event) -> None:
        with anyio.move_on_after(EVERY):
            await closing.wait()

    async def _write(self) -> None:
        """Write one after the other: a repeated write is known by its ordinal, so none may overtake."""
        for type_, said in self._taken():
            try:
                data = said() if callable(said) else said
            except Exception:  # the agent's own: its work goes on
                logger.exception("a %s of task %s cannot be made", type_, self._task.id)
                continue
            self._ordinal += 1
            event = task_event(self._task, type_, data, n=self._ordinal)
            try:
                is_written = await self._journal.insist(event)
            except StoreDamaged:  # the work goes on, and its end may be written
                logger.exception("a %s of task %s cannot be written", type_, self._task.id)
                continue
            if not is_written:
                self.on_lost()
                return

    def _taken(self) -> Iterable[_News]:
        with self._lock:
            news, self._news = self._news, {}
        return news.values()
