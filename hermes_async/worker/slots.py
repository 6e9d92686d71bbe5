"""The slots of a pool: which jobs wait for one, hold one, or are aside; all on the loop's thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context

from hermes_async.worker.tracer import Job

__all__ = ["Aside", "Slots"]


class Slots:
    """Gives slots to jobs, in the order in which they came.

    A job that is aside has begun but holds no slot. When it comes back it goes before those that have not
    begun.

    Args:
        size: how many slots there are just now.
        on_aside: is called when the number of jobs aside has changed.
    """

    def __init__(self, size: Callable[[], int], on_aside: Callable[[], object]) -> None:
        self._size = size
        self._on_aside = on_aside
        #: Nothing begins any more.
        self.closed = False
        self.waiting: deque[Job] = deque()
        self.running: set[Job] = set()
        self.zombies: set[Job] = set()
        #: The jobs without a slot, and how many of their branches are aside; none: it waits to come back.
        self.aside: dict[Job, int] = {}
        self._returning: dict[Job, asyncio.Future[None]] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    def submit(self, job: Job) -> None:
        """Start a job as soon as there is a slot for it."""
        self.waiting.append(job)
        self.fill()

    def fill(self) -> None:
        """Give the free slots away."""
        self.idle.clear()
        while len(self.running) < max(self._size(), 1):
            if self._returning:
                self._take_back(next(iter(self._returning)))
            elif self.waiting and not self.closed:
                job = self.waiting.popleft()
                self.running.add(job)
                Context().run(job.start)  # not the context of the job that has just ended
            else:
                break
        if not (self.running or self.waiting or self.aside):
            self.idle.set()

    def end(self, job: Job) -> None:
        """A job has ended."""
        self.zombies.discard(job)
        self._leave(job)

    def give_up(self, job: Job) -> None:
        """A job does not end although it was abandoned: its slot goes to others."""
        self.zombies.add(job)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        self.running.discard(job)
        if self.aside.pop(job, None) is not None:
            self._release(job)
            self._on_aside()
        self.fill()

    # -- aside and back --------------------------------------------------------------------------------
    def step_aside(self, job: Job) -> None:
        """A branch of a job needs no slot for a while; the first one gives the job's slot back."""
        if job in self.aside:
            self.aside[job] += 1
            self._release(job)  # a branch that was coming back goes on without a slot, as any other
        elif job in self.running:
            self.running.discard(job)
            self.aside[job] = 1
            self._on_aside()
            self.fill()

    async def come_back(self, job: Job, *, at_once: bool) -> None:
        """A branch goes on; the last one waits until the job has a slot again.

        Args:
            job: the job; one that has ended, or is a zombie, has no slot to wait for.
            at_once: do not wait, though that makes one job more than there are slots.
        """
        branches = self.aside.get(job, 0)
        if branches > 1:
            self.aside[job] -= 1
        elif branches and at_once:
            self._take_back(job)
        elif branches:
            await self._slot_for(job)

    async def _slot_for(self, job: Job) -> None:
        self.aside[job] = 0
        waiter = self._returning[job] = asyncio.get_running_loop().create_future()
        self.fill()
        try:
            await waiter
        except BaseException:  # whatever cleans up now must not wait
            if self._returning.get(job) is waiter:
                self._take_back(job)
            raise

    def _take_back(self, job: Job) -> None:
        del self.aside[job]
        self.running.add(job)
        self._release(job)
        self._on_aside()

    def _release(self, job: Job) -> None:
        waiter = self._returning.pop(job, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Aside:
    """Within it, a job does not occupy its slot; a job that is cancelled there cleans up without waiting.

    With `halted`, its time limits do not count meanwhile.
    """

    def __init__(self, slots: Slots, job: Job, *, halted: bool) -> None:
        self._slots = slots
        self._job = job
        self._halted = halted

    async def __aenter__(self) -> None:
        self._slots.step_aside(self._job)
        if self._halted:
            self._job.halt()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        try:
            await self._slots.come_back(self._job, at_once=cancelled or self._job.abandoned)
        finally:
            if self._halted:
                self._job.go_on()
