"""The pool of the process lane: Celery's prefork, with a process more for each that waits for other tasks."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from billiard.pool import RUN
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

from hermes_async.worker.credit import Credit

#: Seconds between two looks whether the pool has a process too many.
LOOK_EVERY = 2.0
#: A process id, whether that process is aside, and whether its time limits are halted.
_WORD = struct.Struct("!q??")


class Children(AsynPool):  # type: ignore[misc]
    """The processes; each is a slot."""

    @property
    def busy(self) -> int:
        """How many have a task."""
        return sum(map(self._has_task, self._pool))

    def _worker_active(self, child: Any) -> bool:
        """Tell whom a shrinking pool must let live; Celery forgets who was handed a task this very moment.

        Whoever was told to go and is still there is nobody to be told so again.
        """
        is_starting = child.inqW_fd not in self._all_inqueues
        return is_starting or child._controlled_termination or self._has_task(child)

    def halt(self, pid: int, *, halted: bool) -> None:
        """Let the time limits of a process's task not strike until it goes on: that time does not count."""
        job = next((job for job in tuple(self._cache.values()) if job._worker_pid == pid), None)
        if job is None:
            return
        now = time.monotonic()
        if halted:
            job.halted_at = now
            self._discard_tref(job._job)
        elif (halted_at := getattr(job, "halted_at", None)) is not None:
            job.halted_at = None
            job._time_accepted += now - halted_at
            self._arm(job, now - job._time_accepted)

    def _arm(self, job: Any, age: float) -> None:
        """Set the limit that is next for a job of that age, as Celery does at its start."""
        soft, hard, hub = job._soft_timeout, job._timeout, self._hub
        if soft and soft > age:
            self._tref_for_id[job._job] = hub.call_later(
                soft - age, self._on_soft_timeout, job._job, soft, hard, hub
            )
        elif hard:
            self._tref_for_id[job._job] = hub.call_later(
                max(hard - age, 0.0), self._on_hard_timeout, job._job
            )

    def register_with_event_loop(self, hub: Any) -> None:
        """Remember the event loop."""
        super().register_with_event_loop(hub)
        self._hub = hub

    def _has_task(self, child: Any) -> bool:
        return any(job._write_to is child for job in tuple(self._cache.values()))


class AsideLine:
    """On it the processes of a pool tell when they are aside, because their task waits for others."""

    def __init__(self) -> None:
        self.hears, self._says = os.pipe()
        os.set_blocking(self.hears, False)
        self._aside: set[int] = set()
        #: Of this process; its task has one branch at most that halts its limits.
        self._branches, self._halted = 0, False
        self._said = (False, False)

    @asynccontextmanager
    async def step_out(self, *, halted: bool = False) -> AsyncIterator[None]:
        """Be aside, from the first branch of a task until the last; on the loop of a child."""
        self._branches += 1
        self._halted |= halted
        self._say()
        try:
            yield
        finally:
            self._branches -= 1
            self._halted &= not halted
            self._say()

    def _say(self) -> None:
        word = (self._branches > 0, self._halted)
        if word != self._said:
            self._said = word
            os.write(self._says, _WORD.pack(os.getpid(), *word))  # so short that it is atomic

    def hear(self, halt: Callable[[int, bool], object] = lambda pid, halted: None) -> None:
        """Note what the processes have said; `halt` is told whose time limits are halted."""
        with suppress(BlockingIOError):
            for pid, aside, halted in _WORD.iter_unpack(os.read(self.hears, 1000 * _WORD.size)):
                (self._aside.add if aside else self._aside.discard)(pid)
                halt(pid, halted)

    def of(self, alive: set[int]) -> set[int]:
        """Return which of those that are alive are aside."""
        self._aside &= alive
        return {*self._aside}

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.hears)
        os.close(self._says)


class PreforkPool(TaskPool):  # type: ignore[misc]
    """Celery's pool with these children.

    A process that is aside cannot take another task, so there is one more for as long: no depth of nesting
    can fill the pool. Those are no slots; nobody who asks how large the pool is sees them.
    """

    Pool = Children

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Is called when the number of processes aside has changed.
        self.on_aside: Callable[[], object] = lambda: None
        self._extra = self._told = 0
        self._line = AsideLine()
        self.app.hermes.step_out = self._line.step_out  # before there are children, who inherit it
        self.app.steps["consumer"].add(Credit)

    def register_with_event_loop(self, hub: Any) -> None:
        """Listen to the children, too."""
        super().register_with_event_loop(hub)
        hub.add_reader(self._line.hears, self._heard)
        hub.call_repeatedly(LOOK_EVERY, self._shed)

    @property
    def num_processes(self) -> int:
        """How many slots there are."""
        return int(super().num_processes) - self._extra

    def cut_off(self) -> None:
        """End the processes for which a warm stop waits; callable on any thread.

        With SIGKILL: Celery's own way is a SystemExit in the midst of a `def`, as if it had failed.
        """
        for child in tuple(self._pool._pool):
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def _heard(self) -> None:
        self._line.hear(lambda pid, halted: self._pool.halt(pid, halted=halted))
        more = self._count_aside() - self._extra
        if more > 0:
            self._extra += more
            self._pool.grow(more)
            self._pool.maintain_pool()  # at once: Celery would start them within some seconds
        self._tell()

    def _shed(self) -> None:
        """End idle processes of which there are too many; not at once, for whoever waits may wait again."""
        with suppress(ValueError):  # all are busy
            while self._extra > self._count_aside():
                self._pool.shrink(1)
                self._extra -= 1
        self._tell()  # of one that has died

    def _tell(self) -> None:
        aside = self._count_aside()
        if aside != self._told:
            self._told = aside
            self.on_aside()

    @property
    def pids_aside(self) -> set[int]:
        """The processes whose task waits for other tasks."""
        if self._pool is None:
            return set()
        if self._pool._state != RUN:  # it stops, so nobody else listens any more
            self._line.hear()
        return self._line.of({child.pid for child in self._pool._pool})

    def _count_aside(self) -> int:
        return len(self.pids_aside)

    def _get_info(self) -> dict[str, Any]:
        if self._pool is None:  # what has to be told yet is told after its end
            return {"aside": 0}
        return {
            **super()._get_info(),
            "max-concurrency": self.num_processes,
            "running": self._pool.busy,
            "aside": self._count_aside(),
        }
