"""What an agent says while it works, coalesced: at most four writes a second, the last word wins."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable

import anyio
from pydantic import BaseModel

from hermes_async.core.journal import Journal
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.events import task_event
from hermes_async.domain.task import Task

logger = logging.getLogger("hermes.reporter")

#: Seconds between two writes of one task.
EVERY = 0.25

_News = tuple[str, BaseModel]


class Reporter:
    """Takes news from any thread at any rate and writes it from the loop on which it was made."""

    def __init__(self, task: Task, journal: Journal) -> None:
        #: Called when the record refuses the news: the attempt is somebody else's by now.
        self.on_lost: Callable[[], None] = lambda: None
        self._task = task
        self._journal = journal
        self._ordinals = itertools.count(1)
        self._lock = threading.Lock()
        self._news: dict[str, _News] = {}
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._writer = asyncio.create_task(self._run(), name=f"hermes-reporter {task.id}")

    def tell(self, key: str, type_: str, data: BaseModel) -> None:
        """Note a piece of news; an unwritten one of the same key is replaced. Never blocks."""
        with self._lock:
            was_empty = not self._news
            self._news.pop(key, None)
            self._news[key] = (type_, data)
        if was_empty:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def close(self) -> None:
        """Write what is left and stop."""
        self._closing.set()
        self._wake.set()
        await asyncio.wait({self._writer})

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            await self._write()
            await self._pause()
        await self._write()

    async def _pause(self) -> None:
        with anyio.move_on_after(EVERY):
            await self._closing.wait()

    async def _write(self) -> None:
        with self._lock:
            news, self._news = self._news, {}
        events = [
            task_event(self._task, type_, data, n=next(self._ordinals)) for type_, data in news.values()
        ]
        try:
            written = await asyncio.gather(*map(self._journal.append, events))
        except StoreUnavailable as exc:
            logger.warning("news of task %s are late: %s", self._task.id, exc)
            self._keep(news)
            return
        if not all(written):
            self.on_lost()

    def _keep(self, news: dict[str, _News]) -> None:
        with self._lock:
            self._news = {**news, **self._news}
        self._wake.set()
