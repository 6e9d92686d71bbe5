"""A Hermes on a thread of its own, for the parts of a worker that are not coroutines."""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from billiard.exceptions import SoftTimeLimitExceeded

from hermes_async.bootstrap import Servers, open_hermes
from hermes_async.core.hermes import Hermes
from hermes_async.core.journal import patiently
from hermes_async.core.outage import Outage
from hermes_async.core.registry import Registry
from hermes_async.domain.errors import ServiceError

logger = logging.getLogger("hermes.worker")

T = TypeVar("T")

# anyio loads it at first use, which would be on a second thread of every child: that takes time, and a fork
# in the middle of an import leaves the new child with locks that nobody gives back.
importlib.import_module("anyio._backends._asyncio")

#: Seconds that a closing station waits for what it still has to write.
PATIENCE = 5.0


class Station:
    """Opens a Hermes in a thread with an event loop, and calls coroutines there from elsewhere.

    The thread is a daemon: a worker that is told to go at once must not wait for it.
    """

    def __init__(self, registry: Registry, servers: Servers) -> None:
        #: True once a soft limit has struck while somebody waited in `call`.
        self.interrupted = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hermes-station", daemon=True)
        self._thread.start()
        self._outage = Outage(logger, "side jobs of this worker")
        self._opening = self.start(open_patiently, registry, servers)

    @property
    def hermes(self) -> Hermes:
        """The Hermes; the first use waits until the servers answer."""
        return self._result(self._opening)

    async def opened(self) -> Hermes:
        """Wait for the Hermes without blocking; only on the station's own loop."""
        return await asyncio.shield(asyncio.wrap_future(self._opening))

    def start(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Future[T]:
        """Begin a coroutine and return its future; cancelling that cancels the coroutine."""
        return asyncio.run_coroutine_threadsafe(function(*args), self._loop)

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Wait for a coroutine; a soft limit that strikes meanwhile is meant for the agent, and noted."""
        future: Future[T] | None = None
        while True:
            try:
                if future is None:
                    with deaf():  # or it would not be known whether the coroutine has begun
                        future = self.start(function, *args)
                return self._result(future)
            except SoftTimeLimitExceeded:
                self.interrupted = True

    async def forever(self, job: Callable[[], Awaitable[object]], every: float) -> None:
        """Do a job again and again; a server that is away is waited for."""
        while True:
            try:
                await job()
                self._outage.ended()
            except ServiceError as exc:
                self._outage.began(exc)
            except Exception:
                logger.exception("a side job of the worker failed; it goes on")
            await asyncio.sleep(every * random.uniform(0.9, 1.1))

    def close(self) -> None:
        """Close the Hermes and end the thread."""
        try:
            self.start(self._finish).result(PATIENCE)
        finally:
            self._end_thread()

    def _result(self, future: Future[T]) -> T:
        while True:
            try:
                return future.result()
            except SoftTimeLimitExceeded:
                self.interrupted = True
                if future.done():
                    return future.result()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._opening.done() and not self._opening.cancelled():
            await self._opening.result().close()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        if not self._thread.is_alive():
            self._loop.close()


@contextmanager
def deaf() -> Iterator[None]:
    """Let soft limits wait until afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def open_patiently(registry: Registry, servers: Servers) -> Hermes:
    """Return a Hermes on the running loop, as soon as its Redis answers.

    A task whose message this worker has must wait for it: an error would lose the message.
    """
    return await patiently(lambda: open_hermes(registry, servers), "the worker")
