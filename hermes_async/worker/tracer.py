"""One Celery task on an asyncio loop: the stock tracer in a greenlet that hands awaitables to the loop."""

from __future__ import annotations

import asyncio
import logging
import time
import types
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, ContextVar
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded
from celery._state import _task_stack
from celery.app.task import Context as Request

from hermes_async.worker.greenlets import traced
from hermes_async.worker.untraced import is_watched, log_success

__all__ = ["Job", "Pool", "current_job", "job_of"]

logger = logging.getLogger(__name__)

#: An abandoned coroutine has this many seconds to clean up; then it is a zombie, and cancelled again.
INSIST_EVERY = 5.0

_job: ContextVar[Job | None] = ContextVar("hermes_async_job", default=None)


class Pool(Protocol):
    """The pool, as far as a job cares."""

    loop: asyncio.AbstractEventLoop
    app: Any

    def run_in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]: ...

    def is_zombie(self, job: Job) -> None: ...

    def is_done(self, job: Job) -> None: ...


class _SoftLimit(SoftTimeLimitExceeded, asyncio.CancelledError):  # type: ignore[misc]
    """The soft limit on its way through the coroutine.

    It is a cancellation too, so that a TaskGroup which is waiting for its children takes them along.
    """


def current_job() -> Job | None:
    """The job whose task, or a child of whose task, is running here."""
    return _job.get()


def job_of(context: Context) -> Job | None:
    """The job to which a context belongs."""
    return context.get(_job)


class Job:
    """What the pool hands to Celery for one task; Celery keeps only a weak reference to it."""

    __slots__ = (
        "__weakref__",
        "_args",
        "_began",
        "_halted_at",
        "_interruption",
        "_limits",
        "_options",
        "_request",
        "_target",
        "_timers",
        "abandoned",
        "failure",
        "pid",
        "pool",
        "task",
        "to_be_killed",
    )

    def __init__(
        self,
        pool: Pool,
        pid: int,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        self.pool = pool
        self.pid = pid
        self.abandoned = False
        #: Somebody has asked for its end, whatever that costs.
        self.to_be_killed = False
        self.task: asyncio.Task[None] | None = None
        #: What the body has raised already, to be raised again where Celery's tracer sees it.
        self.failure: Exception | None = None
        self._target, self._args, self._options = target, args, options
        self._began = 0.0
        self._request: Any = None
        self._interruption: BaseException | None = None
        self._timers: list[asyncio.TimerHandle] = []
        #: The limits that have not struck: when they are due, and what they do then.
        self._limits: list[tuple[float, Callable[[float], None], float]] = []
        self._halted_at: float | None = None

    @property
    def name(self) -> str:
        """The name of the Celery task."""
        return str(self._args[0])

    @property
    def task_id(self) -> str:
        """The id of the Celery task."""
        return str(self._args[1])

    @property
    def request(self) -> Any:
        """What Celery's tracer would tell the task of its message; made when somebody asks, which few do."""
        if self._request is None:
            self._request = Request(self._args[2] or {}, args=(), kwargs={}, called_directly=False)
        return self._request

    @property
    def limit(self) -> float | None:
        """The hard limit, in seconds."""
        return self._options.get("timeout")

    @property
    def age(self) -> float:
        """Seconds since it began, but for those in which it was halted."""
        return (self._halted_at or time.monotonic()) - self._began

    def terminate(self, signal: int | None = None) -> None:
        """Celery calls this beside `terminate_job`, which does the work."""

    def start(self) -> None:
        """Begin, in the slot the pool has given."""
        self.task = self.pool.loop.create_task(self._main(), name=f"celery-job-{self.pid}")

    async def _main(self) -> None:
        _job.set(self)
        self._began = time.monotonic()
        try:
            self._options["accept_callback"](self.pid, self._began)
            if not self.abandoned:  # revoked between receipt and start
                self._set_limits()
                self._report(await self._outcome())
        except BaseException:
            self._report_lost()
        finally:
            self._cancel_timers()
            self.pool.is_done(self)

    async def _outcome(self) -> Any:
        task = self.pool.app.tasks[self.name]
        if not hasattr(task, "untraced") or is_watched(task):
            return await traced(self._target, self._args, self._drive)
        _task_stack.push(task)
        try:
            value = await self._drive(task.untraced(self.task_id))
        except Exception as error:  # what becomes of it, Celery's tracer says
            self.failure = error
            return await traced(self._target, self._args, self._drive)
        finally:
            _task_stack.pop()
        log_success(self.task_id, self.name, value, self.age)
        return 0, repr(value), self.age

    def _report(self, outcome: Any) -> None:
        if not self.abandoned:
            self._options["callback"](outcome)

    def _report_lost(self) -> None:
        """Only an abandoned task may be cancelled; anything else, SystemExit too, is a lost worker."""
        if self.abandoned:
            return
        try:
            self._options["error_callback"](ExceptionInfo())
        except BaseException:
            logger.exception("Celery could not be told about the end of job %s", self.pid)

    # -- running the body ------------------------------------------------------------------------------
    async def _drive(self, body: Awaitable[Any]) -> Any:
        try:
            return await self._interruptible(body)
        except asyncio.CancelledError as error:
            if self.abandoned:
                raise
            if isinstance(error, _SoftLimit):
                raise SoftTimeLimitExceeded(*error.args).with_traceback(error.__traceback__) from None
            raise RuntimeError("The task's coroutine was cancelled from within") from error
        except BaseExceptionGroup as group:
            soft, others = group.split(_SoftLimit)
            if soft is None or others is not None:
                raise
            raise SoftTimeLimitExceeded(*self._soft_limit_args(soft)) from group

    @staticmethod
    def _soft_limit_args(group: BaseExceptionGroup[Any]) -> tuple[Any, ...]:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return error.args

    @types.coroutine
    def _interruptible(self, body: Awaitable[Any]) -> Generator[Any, Any, Any]:
        """Await, and throw the interruption, if there is one, at the body's innermost await."""
        steps: Any = body.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                future = steps.throw(error) if error is not None else steps.send(value)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                value = yield future
            except BaseException as raised:
                error = raised
            error = self._interruption_of(error)

    def _interruption_of(self, error: BaseException | None) -> BaseException | None:
        if self._interruption is None or not (error is None or isinstance(error, asyncio.CancelledError)):
            return error
        error, self._interruption = self._interruption, None
        if self.task is not None:
            self.task.uncancel()
        return error

    # -- limits and termination, on the loop -----------------------------------------------------------
    def _set_limits(self) -> None:
        now = self.pool.loop.time()
        soft, hard = self._options.get("soft_timeout"), self.limit
        strikes = ((soft, self._on_soft_limit), (hard, self._on_hard_limit))
        self._limits = [(now + limit, strike, limit) for limit, strike in strikes if limit]
        self._arm()

    def _arm(self) -> None:
        self._timers += [self.pool.loop.call_at(at, strike, limit) for at, strike, limit in self._limits]

    def halt(self) -> None:
        """Let no limit strike until `go_on`: the time between does not count."""
        if self.abandoned:
            return
        self._halted_at = now = self.pool.loop.time()
        self._limits = [limit for limit in self._limits if limit[0] > now]
        self._cancel_timers()

    def go_on(self) -> None:
        """Let the limits strike again, so much later."""
        if self._halted_at is None or self.abandoned:
            return
        pause, self._halted_at = self.pool.loop.time() - self._halted_at, None
        self._began += pause
        self._limits = [(at + pause, strike, limit) for at, strike, limit in self._limits]
        self._arm()

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _later(self, delay: float, function: Callable[..., None], *args: Any) -> None:
        self._timers.append(self.pool.loop.call_later(delay, function, *args))

    def _on_soft_limit(self, limit: float) -> None:
        if self.task is not None and not self.abandoned:
            self._options["timeout_callback"](True, limit)
            self._interruption = _SoftLimit(limit)
            self.task.cancel()

    def _on_hard_limit(self, limit: float) -> None:
        if not self.abandoned:
            self.abandon()
            self._options["timeout_callback"](False, limit)

    def time_out(self) -> None:
        """Drop the result because of the hard limit, on any thread: the loop is blocked."""
        if self.abandoned or self.to_be_killed:
            return
        self.abandoned = True
        try:
            self._options["timeout_callback"](False, self.limit)
        except Exception:
            logger.exception("Celery could not be told that task %s is out of time", self.task_id)

    def abandon(self) -> None:
        """Drop the result, whatever becomes of the coroutine, and cancel it until it ends."""
        self.abandoned, self._interruption = True, None
        if self.task is not None:
            self.task.cancel()
            self._later(INSIST_EVERY, self._insist)

    def _insist(self) -> None:
        self.pool.is_zombie(self)
        self.abandon()
