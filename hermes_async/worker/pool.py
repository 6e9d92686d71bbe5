"""A Celery pool: hundreds of `async def` tasks on one asyncio loop, with real limits and real cancel."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from concurrent import futures
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from signal import SIGKILL
from typing import Any

from celery import signals
from celery.concurrency.base import BasePool

from hermes_async.worker.bridge import adopt, adopted, rebuild_tracer, watch_task_stack
from hermes_async.worker.credit import Credit
from hermes_async.worker.recycle import Callback, Recycling, Rules
from hermes_async.worker.slots import Aside, Slots
from hermes_async.worker.threads import Threads
from hermes_async.worker.tracer import Job, current_job
from hermes_async.worker.watchdog import Watchdog

__all__ = ["AsyncioPool", "running_pool"]

logger = logging.getLogger(__name__)

#: How long a stop waits for coroutines that were cancelled, and for closing what they used, in seconds.
GRACE = 5.0
#: The "process ids" of jobs begin where no real one is.
FIRST_PID = 1 << 32


class AsyncioPool(BasePool):  # type: ignore[misc]
    """One event loop in one thread; a slot for each coroutine.

    `async def` bodies run on the loop, `def` bodies in its thread pool. To close what tasks have opened on
    the loop, register an async function with `on_loop_stop`; inside a task, `running_pool()` is the pool, and
    what waits for other tasks there does so `aside`. A worker process that a task has spoiled ends itself, to
    be replaced: by `rules`, or because somebody called `recycle`.
    A Celery task may have an async function `untraced` that takes the task's id: it runs instead of the body,
    without Celery's tracer, as long as nobody listens to what the tracer tells.
    Celery's `worker_process_init` and `worker_process_shutdown` are sent on the loop's thread.
    """

    signal_safe = False
    task_join_will_block = True
    body_can_be_buffer = True

    limit: int
    loop: asyncio.AbstractEventLoop
    #: When the worker process must be replaced.
    rules = Rules()
    #: Celery's consumer, in a worker.
    consumer: Any = None
    _thread: threading.Thread | None = None
    _threads: Threads
    _watchdog: Watchdog

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hostname: str | None = (self.options.get("initargs") or (None, None))[1]
        self._pids = itertools.count(FIRST_PID)
        self._stop_callbacks: list[Callable[[], Awaitable[None]]] = []
        #: Is called on the loop when the number of jobs aside has changed.
        self.on_aside: Callable[[], object] = lambda: None
        self.app.steps["consumer"].add(Credit)
        self._recycling = Recycling()
        self._inbox: deque[Job] = deque()
        self._is_woken = False
        # Everything below belongs to the loop's thread.
        self._jobs: dict[int, Job] = {}
        self._slots = Slots(lambda: self.limit, lambda: self.on_aside())

    def on_loop_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await this when the pool stops, while the loop still runs; the latest registered comes first."""
        self._stop_callbacks.append(callback)

    # -- starting and stopping, on Celery's thread -----------------------------------------------------
    def on_start(self) -> None:
        """Start the loop."""
        watch_task_stack()
        for task in self.app.tasks.values():  # the consumer builds their tracers after this
            if not adopted(task):
                adopt(task)
        self.loop = asyncio.new_event_loop()
        self._threads = Threads(self.loop, self._judge)
        self._watchdog = Watchdog(self.loop, self._begun, self._on_block)
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run_loop, args=(started,), name="celery-asyncio", daemon=True
        )
        self._thread.start()
        started.wait()

    def on_stop(self) -> None:
        """Warm: every job ends first."""
        self._end(self._slots.idle.wait, patience=math.inf)

    def on_terminate(self) -> None:
        """Cold: running jobs are cancelled, and their messages go back to the broker."""
        self._slots.closed = True
        self._end(self._abandon_all, patience=2 * GRACE)

    def cut_off(self) -> None:
        """End the jobs for which a warm stop waits; callable on any thread."""
        asyncio.run_coroutine_threadsafe(self._abandon_all(), self.loop)

    def _end(self, first: Callable[[], Awaitable[Any]], patience: float) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        end = asyncio.run_coroutine_threadsafe(self._wind_up(first), self.loop)
        try:
            self._await(end, patience)
            thread.join(GRACE)
        except TimeoutError:
            logger.error("A task blocks the event loop of the pool: it is left behind")
        except BaseException:  # a second signal: Celery comes back to terminate
            end.cancel()
            self._thread = thread
            raise
        self._watchdog.stop()
        self._threads.end()

    def _await(self, end: Future[None], patience: float) -> None:
        deadline = time.monotonic() + patience
        while not futures.wait({end}, timeout=0.2).done:
            hopeless = self._recycling.began and self._watchdog.sees_a_block
            if hopeless or time.monotonic() > deadline:
                raise TimeoutError
        end.result()

    # -- what Celery asks, on any thread ---------------------------------------------------------------
    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Job:
        """Take a job."""
        task = self.app.tasks[args[0]]
        if not adopted(task):
            adopt(task)
            rebuild_tracer(task, self._hostname)
        for limit in ("soft_timeout", "timeout"):
            options[limit] = options.get(limit) or self.options.get(limit)
        job = Job(self, next(self._pids), target, args, options)
        self._inbox.append(job)
        if not self._is_woken:  # one wakeup serves all jobs that come before the loop looks
            self._is_woken = True
            self.loop.call_soon_threadsafe(self._take)
        return job

    @property
    def pids_aside(self) -> set[int]:
        """The "process ids" of the jobs that wait for other tasks."""
        return {job.pid for job, branches in [*self._slots.aside.items()] if branches}

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel a job and drop its result; Celery has announced that it is revoked.

        With SIGKILL, a job that does not end is the end of this process.
        """
        if signal == SIGKILL and pid in self._jobs:
            self._jobs[pid].to_be_killed = True
        if _is_running(self.loop):
            self._abandon(pid)
        else:
            self.loop.call_soon_threadsafe(self._abandon, pid)

    def grow(self, n: int = 1) -> None:
        """More slots."""
        self.limit += n
        self.loop.call_soon_threadsafe(self._slots.fill)

    def shrink(self, n: int = 1) -> None:
        """Fewer slots; what runs, runs on."""
        self.limit = max(self.limit - n, 1)

    def flush(self) -> None:
        """The broker is lost and will deliver again what has not begun."""
        if self._thread is not None:  # Celery asks this of a stopped pool, too
            self.loop.call_soon_threadsafe(self._forget_waiting)

    # -- replacing the process -------------------------------------------------------------------------
    def on_recycle(self, callback: Callback) -> None:
        """Call this, off the loop, before a process that must be replaced ends."""
        self._recycling.listen(callback)

    def recycle(self, why: str, culprits: Collection[str] = ()) -> None:
        """End this worker process with a code that has its supervisor start another; callable on any thread.

        Args:
            why: ends the sentence "This worker process is to be replaced: ".
            culprits: ids of the tasks that are to blame; all others are handed back.
        """
        jobs = self._begun()
        if self.consumer is not None:
            self._slots.closed = True  # what waits has not been touched, and shall not be
        self._recycling.begin(why, jobs, [job for job in jobs if job.task_id in culprits], self.consumer)

    def _begun(self) -> list[Job]:
        return [job for job in [*self._jobs.values()] if job.task is not None]

    def _on_block(self, job: Job, seconds: float) -> None:
        why = self.rules.blocked(job, seconds)
        if why is not None:
            job.time_out()
            self.recycle(why, [job.task_id])

    def _judge(self, job: Job) -> None:
        zombies = self._slots.zombies
        why = self.rules.zombies(len(zombies) + len(self._threads.strays), job)
        if why is not None and self._thread is not None:  # one that stops does not wait for zombies
            self.recycle(why, {job.task_id, *(zombie.task_id for zombie in zombies)})

    def _get_info(self) -> dict[str, Any]:
        soft, hard = (self.options.get(limit) or 0 for limit in ("soft_timeout", "timeout"))
        return {
            **super()._get_info(),
            "processes": [os.getpid()],
            "running": len(self._slots.running),
            "waiting": len(self._slots.waiting),
            "aside": len(self._slots.aside),
            "zombies": len(self._slots.zombies) + len(self._threads.strays),
            "timeouts": (soft, hard),
        }

    # -- on the loop -----------------------------------------------------------------------------------
    def _run_loop(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._begin, started)
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                logger.error("A coroutine raised %r; the loop goes on", error)
            else:
                break
        self.loop.close()

    def _begin(self, started: threading.Event) -> None:
        signals.worker_process_init.send(sender=self._hostname)
        self._watchdog.start()
        started.set()

    def _take(self) -> None:
        self._is_woken = False  # first, so that nothing is left in the inbox
        while self._inbox:
            job = self._inbox.popleft()
            self._jobs[job.pid] = job
            self._slots.submit(job)

    def is_done(self, job: Job) -> None:
        """A job has ended."""
        self._jobs.pop(job.pid, None)
        self._slots.end(job)

    def is_zombie(self, job: Job) -> None:
        """A job does not end although it was abandoned: its slot goes to others."""
        self._slots.give_up(job)
        self._judge(job)

    def aside(self, *, halted: bool = False) -> AbstractAsyncContextManager[None]:
        """Within this, the task that is running does not occupy a slot; for waiting for other tasks.

        Several branches of a task may be aside at once: its slot is free until the last of them leaves,
        which then waits for a slot, before tasks that have not begun. One that is cancelled does not wait.
        With `halted`, for one branch at a time, the task's time limits do not count meanwhile.
        """
        job = current_job()
        if job is None or job.pool is not self:
            return nullcontext()
        return Aside(self._slots, job, halted=halted)

    def _abandon(self, pid: int) -> None:
        job = self._jobs.get(pid)
        if job is not None:
            job.abandon()

    def _forget_waiting(self) -> None:
        while self._slots.waiting:
            del self._jobs[self._slots.waiting.popleft().pid]
        self._slots.fill()

    def run_in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Run a `def` body."""
        return self._threads.run(function)

    async def _abandon_all(self) -> None:
        self._forget_waiting()
        for job in (*self._slots.running, *self._slots.aside):
            job.abandon()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._slots.idle.wait()

    async def _wind_up(self, first: Callable[[], Awaitable[Any]]) -> None:
        await first()
        signals.worker_process_shutdown.send(sender=self._hostname, pid=os.getpid(), exitcode=0)
        for callback in reversed(self._stop_callbacks):
            await self._call(callback)
        await self._cancel_leftovers()
        await self.loop.shutdown_asyncgens()
        self.loop.call_soon(self.loop.stop)

    async def _call(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(GRACE):
                await callback()
        except Exception:
            logger.exception("Could not close %r", callback)

    async def _cancel_leftovers(self) -> None:
        leftovers = asyncio.all_tasks() - {asyncio.current_task()}
        for task in leftovers:
            task.cancel()
        if leftovers:
            await asyncio.wait(leftovers, timeout=1)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    return asyncio._get_running_loop() is loop


def running_pool() -> AsyncioPool | None:
    """The pool that runs the task from which this is called."""
    job = current_job()
    return job.pool if job is not None and isinstance(job.pool, AsyncioPool) else None
