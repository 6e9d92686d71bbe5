"""A thread that notices when a task blocks the event loop, and says which one, and where."""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import sysconfig
import threading
import time
from asyncio.events import Handle
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType

from hermes_async.worker.tracer import Job, job_of

__all__ = ["Watchdog"]

logger = logging.getLogger(__name__)

#: Seconds after which a warning is logged; the next one comes after twice the time.
THRESHOLD = 1.0
#: Where code lies that is nobody's own.
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Watchdog:
    """Asks the loop for a sign of life, again and again.

    Args:
        loop: an event loop that runs in another thread.
        jobs: the jobs that have begun on it.
        on_block: is called while a job blocks the loop, with the seconds since that was seen first.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        jobs: Callable[[], Iterable[Job]],
        on_block: Callable[[Job, float], None],
    ) -> None:
        self._loop, self._jobs, self._on_block = loop, jobs, on_block
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celery-watchdog", daemon=True)
        self._loop_thread = 0
        self._asked = time.monotonic()
        self._answered: float | None = None
        self._warn_after = THRESHOLD
        self._suspect: tuple[Job | None, float] = (None, 0.0)
        self._who = ""

    def start(self) -> None:
        """Begin; on the loop's thread."""
        self._loop_thread = threading.get_ident()
        self._thread.start()

    @property
    def sees_a_block(self) -> bool:
        """Whether a warning has been logged, and the loop is not free yet."""
        return self._answered is None and self._warn_after > THRESHOLD

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        self._ask()
        while not self._stopped.wait(THRESHOLD / 2):
            self._look()

    def _ask(self) -> None:
        self._asked, self._answered, self._warn_after = time.monotonic(), None, THRESHOLD
        self._suspect = (None, 0.0)
        with suppress(RuntimeError):  # the loop is closed: we end in a moment
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._answered = time.monotonic()

    def _look(self) -> None:
        if self._answered is None:
            self._bark(time.monotonic())
            return
        if self._warn_after > THRESHOLD:
            seconds = self._answered - self._asked
            logger.warning("The event loop is free again: %s has blocked it for %.1f s", self._who, seconds)
        self._ask()

    def _bark(self, now: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None or frame.f_code.co_filename == selectors.__file__:
            return  # it waits for work: the whole process was stopped, and we are awake first
        job = self._job_at(frame)
        if job is not self._suspect[0]:
            self._suspect = (job, now)
        if now - self._asked >= self._warn_after:
            self._warn_after *= 2
            self._who = "something that is no task" if job is None else f"task {job.name}[{job.task_id}]"
            text = "The event loop is blocked for %.1f s by %s, at %s"
            logger.warning(text, now - self._asked, self._who, _place(frame))
        if job is not None:
            self._on_block(job, now - self._suspect[1])

    def _job_at(self, frame: FrameType | None) -> Job | None:
        """Return the job whose task, or child or callback, runs in the frame."""
        while frame is not None:
            if frame.f_code is Handle._run.__code__:
                return job_of(frame.f_locals["self"]._context)
            frame = frame.f_back
        task = asyncio.current_task(self._loop)  # the greenlet of a tracer has a stack of its own
        return next((job for job in self._jobs() if job.task is task), None)


def _place(frame: FrameType) -> str:
    """Name the innermost line that is not a library's."""
    own: FrameType | None = frame
    while own is not None and own.f_code.co_filename.startswith((*LIBRARIES, "<")):
        own = own.f_back
    shown = own or frame
    return f"{shown.f_code.co_filename}:{shown.f_lineno} {shown.f_code.co_qualname}"
