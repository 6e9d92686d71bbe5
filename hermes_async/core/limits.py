"""How long an attempt may take, be silent, and bring its task's whole life to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Task


class Limits:
    """The time limits of one claimed attempt; signs of life may come from any thread."""

    __slots__ = (
        "_ends",
        "_halted_at",
        "_is_paused",
        "_last_sign",
        "_options",
        "_strike",
        "_timer",
        "began",
        "reason",
    )

    def __init__(self, task: Task, now: float | None = None) -> None:
        #: By the monotonic clock, when it was claimed.
        self.began = time.monotonic() if now is None else now
        #: Which limit has struck.
        self.reason: Reason | None = None
        self._options = task.birth.options
        self._ends = tuple(_ends(task, self.began))
        self._last_sign = self.began
        self._is_paused = False
        self._halted_at: float | None = None
        self._strike: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def sign(self) -> None:
        """Note a sign of life."""
        self._last_sign = time.monotonic()

    def pause(self, paused: bool) -> None:
        """While it waits, for its children or for an answer, a task may be silent."""
        self.sign()
        self._is_paused = paused

    def halt(self, halted: bool) -> None:
        """While it waits for an answer, the time of the attempt stands still; that of its task goes on."""
        now = time.monotonic()
        if halted:
            self._halted_at = now
        elif self._halted_at is not None:
            passed = now - self._halted_at
            self._ends = tuple(
                (reason, at + passed if reason is Reason.TIMEOUT else at) for reason, at in self._ends
            )
            self._halted_at = None
        if self._timer is not None:
            self._timer.cancel()
        if self._strike is not None and self.reason is None:
            self._look(self._strike)

    def watch(self, strike: Callable[[], object], *, without: Reason | None = None) -> None:
        """Call `strike` on the running loop when a limit is over; `without` one that somebody else keeps."""
        if without is not None:
            self._ends = tuple(each for each in self._ends if each[0] is not without)
        self._strike = strike
        self._look(strike)

    def stop(self) -> None:
        """Strike no more."""
        self._strike = None
        if self._timer is not None:
            self._timer.cancel()

    def told(self) -> str:
        """Return a sentence on the limit of the attempt that has struck; without one, it is its timeout."""
        options = self._options
        if self.reason is Reason.IDLE_TIMEOUT:
            return f"no sign of life for {options.idle_timeout:g} s"
        if options.timeout is None:  # it was stopped, and not by a limit
            return "stopped"
        return f"no result within {options.timeout:g} s"

    def _look(self, strike: Callable[[], object]) -> None:
        due = min(((at, reason) for reason, at in self._all()), default=None)
        if due is None:
            return
        at, reason = due
        left = at - time.monotonic()
        if left <= 0:
            self.reason = reason
            strike()
        else:
            self._timer = asyncio.get_running_loop().call_later(left, self._look, strike)

    def _all(self) -> Iterator[tuple[Reason, float]]:
        for reason, at in self._ends:
            if reason is not Reason.TIMEOUT or self._halted_at is None:
                yield reason, at
        if self._options.idle_timeout is not None:
            since = time.monotonic() if self._is_paused else self._last_sign
            yield Reason.IDLE_TIMEOUT, since + self._options.idle_timeout


def _ends(task: Task, began: float) -> Iterator[tuple[Reason, float]]:
    options = task.birth.options
    if options.timeout is not None:
        yield Reason.TIMEOUT, began + options.timeout
    if options.total_timeout is not None:
        spent = (task.started_at or 0.0) - task.created_at
        yield Reason.TOTAL_TIMEOUT, began + options.total_timeout - spent
    if options.limits.seconds is not None:
        spent = (task.started_at or 0.0) - (task.began_at or task.started_at or 0.0)
        yield Reason.BUDGET_EXCEEDED, began + options.limits.seconds - spent
