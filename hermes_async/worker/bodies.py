"""The bodies of the Celery tasks: run the one task that the message names, and tell Celery how it went."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from billiard.common import terminate_handler_fired
from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import Ignore, Retry

from hermes_async.bootstrap import Servers
from hermes_async.core.aside import StepOut, stay
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.core.runner import Attempt, Runner, raised
from hermes_async.core.threads import are_too_many
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import Outcome
from hermes_async.settings import Settings
from hermes_async.worker.failures import log_failure
from hermes_async.worker.pool import running_pool
from hermes_async.worker.station import Station, deaf, open_patiently


class AgentFailed(Exception):
    """The agent failed for good; the record has settled it, this only tells Celery."""


class Runners:
    """The runners of this worker process: one on the pool's loop, or one behind a station per child."""

    def __init__(self, registry: Registry, servers: Servers, settings: Settings) -> None:
        self.registry = registry
        self.servers = servers
        self.lease = settings.lease
        self.retention = settings.retention
        self.grace = settings.grace
        #: What still ran was given away, for the worker stops and its grace is over.
        self.is_cut_off = False
        #: What a task of the process lane does with its process while it waits for others.
        self.step_out: StepOut = stay
        #: Requests, by task id, that were told to clean up.
        self.interrupted: dict[str, Any] = {}
        #: Names this worker in leases; a restarted one is another.
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._parent = os.getpid()
        self._opening: asyncio.Task[tuple[Hermes, Runner]] | None = None
        #: By process id. A forked child keeps its parent's: collecting that as garbage would close the
        #: parent's sockets in the parent's event loop.
        self._stations: dict[int, Station] = {}

    async def on_loop(self) -> Runner:
        """Return the runner on the pool's loop, opened at first use and closed with the pool."""
        if self._opening is None:
            pool = running_pool()
            assert pool is not None
            pool.on_loop_stop(self._close_on_loop)
            self._opening = asyncio.create_task(self._open_on_loop())
        opening = self._opening
        if not opening.done():
            await asyncio.shield(opening)  # others wait for it, too
        return opening.result()[1]

    def station(self) -> Station:
        """Return the station of this process; a forked child gets its own."""
        pid = os.getpid()
        if pid not in self._stations:
            self._stations[pid] = Station(self.registry, self.servers)
        return self._stations[pid]

    def close_child(self) -> None:
        """Close the station of a forked child; the parent's ends with the worker."""
        if os.getpid() != self._parent:
            self.close()

    def close(self) -> None:
        """Close this process's station, if it has one."""
        station = self._stations.pop(os.getpid(), None)
        if station is not None:
            station.close()

    async def _open_on_loop(self) -> tuple[Hermes, Runner]:
        hermes = await open_patiently(self.registry, self.servers)
        return hermes, hermes.runner(self.worker, self.lease, _step_out)

    async def _close_on_loop(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None or opening.cancel():  # nothing could be opened yet
            return
        hermes, _ = opening.result()
        await hermes.close()


async def run_on_loop(runners: Runners, task_id: str) -> str:
    """Run a task of the async lane."""
    runner = await runners.on_loop()
    event = await runner.run(task_id)
    if are_too_many():
        _recycle("calls of functions do not end although they were given up")
    return told(event)


def _recycle(why: str) -> None:
    """Have this process replaced, when the task that has noticed has ended."""
    pool = running_pool()
    if pool is not None:
        asyncio.get_running_loop().call_soon(pool.recycle, why)


def run_here(runners: Runners, task_id: str) -> str:
    """Run a task of the process lane: a `def` in this thread, where its limits can reach it."""
    station = runners.station()
    station.interrupted = False
    runner = station.hermes.runner(runners.worker, runners.lease, runners.step_out)
    attempt = station.call(runner.claim, task_id)
    if attempt is None:
        return told(None)
    return told(station.call(runner.settle, attempt, _outcome(station, attempt)))


def _outcome(station: Station, attempt: Attempt) -> Outcome:
    try:
        station.call(_watch, attempt)
        _check(station)
        with _here(attempt):
            if attempt.subagent.is_async:
                return _awaited(station, attempt)
            value = attempt.call()
            attempt.context.wait(attempt.children_end)  # as the agent itself waits: a soft limit ends it
            return attempt.returned(value)
    except SoftTimeLimitExceeded:  # out of time, or asked to cancel: the record knows which
        return attempt.timed_out()
    except BaseException as exc:
        if terminate_handler_fired():  # this process is to go; the main process knows why, and writes it
            raise
        return raised(exc)
    finally:
        station.call(_unwatch, attempt)  # on its loop: a signal is sent before that, or never


@contextmanager
def _here(attempt: Attempt) -> Iterator[None]:
    """Be in the attempt; a soft limit waits until that is begun, so that the agent hears it."""
    with ExitStack() as stack:
        with deaf():
            stack.enter_context(attempt.here())
        yield


async def _unwatch(attempt: Attempt) -> None:
    attempt.limits.stop()


async def _watch(attempt: Attempt) -> None:
    """Keep the limits that Celery does not know, as it keeps the one that it does: a signal to the agent."""
    attempt.limits.watch(partial(signal.pthread_kill, _main_thread(), signal.SIGUSR1), without=Reason.TIMEOUT)


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident


def _step_out(*, halted: bool) -> AbstractAsyncContextManager[None]:
    """Give back the pool's slot."""
    pool = running_pool()
    return stay(halted=halted) if pool is None else pool.aside(halted=halted)


def _check(station: Station) -> None:
    if station.interrupted:  # before the agent could hear of it
        raise SoftTimeLimitExceeded


def _awaited(station: Station, attempt: Attempt) -> Outcome:
    """Run an `async def` on the station's loop; a soft limit cancels it and lets it clean up."""
    try:
        station.call(_begin, attempt)
        _check(station)
        return attempt.returned(station.start(_end_of, attempt).result())
    except SoftTimeLimitExceeded:
        station.call(_stop, attempt)
        raise


async def _begin(attempt: Attempt) -> None:
    attempt.owner = asyncio.create_task(attempt.finish())


async def _end_of(attempt: Attempt) -> Any:
    assert attempt.owner is not None
    return await attempt.owner


async def _stop(attempt: Attempt) -> None:
    if attempt.owner is not None:
        attempt.owner.cancel()
        await asyncio.wait({attempt.owner})


def told(event: AnyEvent | None) -> str:
    """Return or raise what makes Celery's own monitors show what the record says."""
    if event is None:
        raise Ignore("not to be run here: it has ended, or another worker has it")
    if event.type == "task.completed":
        return "completed"
    if event.type not in ("task.retrying", "task.failed"):
        raise Ignore(event.type)
    log_failure(event)
    error = event.data.error
    if event.type == "task.retrying":
        raise Retry(f"{error.type}: {error.message}", when=event.data.delay)
    raise AgentFailed(f"{event.data.reason}: {error.type}: {error.message}")
