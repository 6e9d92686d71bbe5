"""The threads of a pool, for `def` bodies: they cannot be cancelled, only left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _threads_queues
from typing import Any

from hermes_async.worker import tracer
from hermes_async.worker.tracer import Job, current_job

__all__ = ["Threads"]

#: The most threads; they are started as they are needed. Asyncio's own few would starve a pool this size.
MOST = 256


class Threads:
    """The default executor of a loop.

    Args:
        loop: the event loop.
        on_stray: is called with the job of a thread that does not end although the job was abandoned.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_stray: Callable[[Job], None]) -> None:
        self._loop, self._on_stray = loop, on_stray
        self._executor = ThreadPoolExecutor(MOST, "celery-def")
        loop.set_default_executor(self._executor)
        #: What goes on although nobody waits for it any more.
        self.strays: set[asyncio.Future[Any]] = set()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run a function of the current job; if the job is abandoned, the thread is counted until it ends."""
        work = self._executor.submit(function)
        future = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(future)
        finally:
            if not work.cancel() and not future.done():  # what has not begun does not begin any more
                self._leave_behind(future)

    def _leave_behind(self, future: asyncio.Future[Any]) -> None:
        job = current_job()
        assert job is not None
        self.strays.add(future)
        judging = self._loop.call_later(tracer.INSIST_EVERY, self._on_stray, job)
        future.add_done_callback(self.strays.discard)
        future.add_done_callback(lambda _: judging.cancel())

    def end(self) -> None:
        """End the threads; those that are still busy must not keep the process from ending."""
        threads = tuple(self._executor._threads)
        self._executor.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + 1.0
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
            if thread.is_alive():  # it is a daemon, and yet the interpreter would wait for it
                _threads_queues.pop(thread, None)  # type: ignore[attr-defined]
