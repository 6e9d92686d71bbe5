"""Running one task: claim it, call the agent under its limits, settle what came of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from hermes_async.core.aside import Aside, StepOut, stay
from hermes_async.core.children import Children
from hermes_async.core.context import TaskContext
from hermes_async.core.conversation import Conversation
from hermes_async.core.dispatch import Dispatcher, Origin
from hermes_async.core.journal import Journal, patiently
from hermes_async.core.limits import Limits
from hermes_async.core.registry import Registry
from hermes_async.core.reporter import Reporter
from hermes_async.core.signature import as_json
from hermes_async.core.subagent import Subagent
from hermes_async.domain.errors import HermesError, RetryAfter, UserError
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import Interrupted, Outcome, Raised, Returned, decide
from hermes_async.domain.task import Task

T = TypeVar("T")

_claims = itertools.count(1)

#: Characters of an exception's message and of its traceback that are kept.
MESSAGE_LENGTH, TRACEBACK_LENGTH = 2_000, 6_000


@dataclass
class Attempt:
    """A claimed task in the hands of this process."""

    task: Task
    subagent: Subagent[..., Any]
    context: TaskContext
    reporter: Reporter
    limits: Limits
    aside: Aside
    children: Children
    #: The coroutine that runs it, where that is what to cancel.
    owner: asyncio.Task[Any] | None = None
    #: It was given to somebody else, or will be: nothing is to be written of it any more.
    is_lost: bool = False

    def abandon(self) -> None:
        """Stop working on what is not ours any more."""
        self.is_lost = self.context.cancelled = True
        if self.owner is not None:
            self.owner.cancel()

    def call(self) -> Any:
        """Call the agent's function with its validated input; an `async def` gives its coroutine."""
        arguments = self.subagent.signature.validate(self.task.birth.input)
        return self.subagent.function(self.context, **arguments)

    async def finish(self) -> Any:
        """Await an agent that is an `async def`, and then the ends of the tasks that it has dispatched."""
        value = await self.call()
        await self.children.ended()
        return value

    def returned(self, value: object) -> Returned:
        """Return the outcome of a function that came back with `value`."""
        return Returned(as_json(value, f"the result of {self.task.agent}"))

    def timed_out(self) -> Raised:
        """Return the outcome of an attempt that took longer than it may."""
        reason = self.limits.reason or Reason.TIMEOUT
        error = ErrorInfo(type="TimeoutError", message=self.limits.told())
        return Raised(error, reason, ("TimeoutError",), permanent=reason is Reason.TOTAL_TIMEOUT)


class Runner:
    """Runs tasks on behalf of one worker."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        dispatcher: Dispatcher,
        *,
        worker: str,
        lease: float,
        step_out: StepOut = stay,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._worker = worker
        self._lease = lease
        self._dispatcher = dispatcher
        self._step_out = step_out

    async def run(self, task_id: str) -> AnyEvent | None:
        """Run a task to the end of its next attempt.

        Returns the event that ended the attempt, or None when the task was not to be run: another worker
        has it, or it has ended.
        """
        attempt = await self.claim(task_id)
        if attempt is None:
            return None
        attempt.owner = asyncio.current_task()
        outcome = await self._outcome(attempt)
        attempt.owner = None
        return await self.settle(attempt, outcome)

    async def claim(self, task_id: str) -> Attempt | None:
        """Make the next attempt of a task ours, or return None when it is not to be run."""
        token = f"{os.getpid()}-{next(_claims)}"  # no other claim of this worker has it, in whichever process
        claim = partial(self._journal.store.claim, task_id, self._worker, self._lease, token)
        task = await patiently(claim, f"the start of {task_id}")
        if task is None:
            return None
        try:
            subagent = self._registry.agent(task.agent)
        except UserError as exc:  # this worker does not have what the dispatcher had
            await self._journal.insist(decide(task, raised(exc)))
            return None
        limits = Limits(task)
        reporter = Reporter(task, self._journal, limits.sign)
        aside = Aside(task, self._journal.store, limits, self._step_out)
        children = Children(self._dispatcher.of(Origin.of(task), aside))
        conversation = Conversation(task, self._journal.store, aside)
        context = TaskContext(task, reporter, children, conversation)
        context.cancelled = task.cancel_requested
        attempt = Attempt(task, subagent, context, reporter, limits, aside, children)
        reporter.on_lost = conversation.on_lost = attempt.abandon
        return attempt

    async def settle(self, attempt: Attempt, outcome: Outcome) -> AnyEvent | None:
        """Write how the attempt ended; return that event, or None when the attempt was no longer ours.

        Whoever cancels meanwhile comes too late.
        """
        attempt.context.cancelled |= not isinstance(outcome, Returned)  # a thread may still be at work
        attempt.aside.is_over = True
        return await _to_the_end(self._settle(attempt, outcome))

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> AnyEvent | None:
        await attempt.reporter.close()
        task = attempt.task
        if attempt.is_lost:  # even if it is in nobody's hands yet
            return None
        if isinstance(outcome, Raised):
            await attempt.children.stop()
        if not isinstance(outcome, Returned):  # only then it matters whether somebody asked to cancel
            task = await self._latest(task)
        event = decide(task, outcome, chance=random.random())
        return event if await self._journal.insist(event) else None

    async def _latest(self, task: Task) -> Task:
        current = await patiently(lambda: self._journal.store.load(task.id), f"the end of {task.id}")
        flag = current is not None and current.cancel_requested
        return task.model_copy(update={"cancel_requested": flag})

    async def _outcome(self, attempt: Attempt) -> Outcome:
        if attempt.task.cancel_requested:
            return Interrupted()
        # Not anyio's scope: that cancels again at every await, so that an agent could not clean up.
        limit = asyncio.timeout(None)
        try:
            async with limit:
                attempt.limits.watch(lambda: limit.reschedule(0.0))
                return attempt.returned(await _called(attempt))
        except asyncio.CancelledError:
            return _interrupted()
        except BaseException as exc:  # what an agent makes of being aborted is no reason of its own
            return attempt.timed_out() if limit.expired() else raised(exc)
        finally:
            attempt.limits.stop()


async def _called(attempt: Attempt) -> Any:
    if attempt.subagent.is_async:
        return await attempt.finish()
    return await anyio.to_thread.run_sync(attempt.call, abandon_on_cancel=True)


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do what must not be cut short, neither by a scope nor by `Task.cancel`."""
    task = asyncio.ensure_future(work)
    with suppress(asyncio.CancelledError):
        return await asyncio.shield(task)
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
    return task.result()


def _interrupted() -> Outcome:
    """Tell a cancel from outside from one that the agent's own code raised."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return raised(asyncio.CancelledError("the agent cancelled itself"))
    while task.uncancel():  # from here on the attempt is settled, whatever was asked
        pass
    return Interrupted()


def raised(exc: BaseException) -> Raised:
    """Return the outcome of an agent that raised `exc`."""
    lines = traceback.format_exception(exc)
    classes = [cls for cls in type(exc).__mro__ if cls is not object]
    info = ErrorInfo(
        type=type(exc).__qualname__,
        message=_clean(_text(exc))[:MESSAGE_LENGTH],
        traceback="" if isinstance(exc, HermesError) else _clean("".join(lines))[-TRACEBACK_LENGTH:],
    )
    return Raised(
        info,
        kinds=tuple(
            name for cls in classes for name in (cls.__qualname__, f"{cls.__module__}.{cls.__qualname__}")
        ),
        retry_after=exc.seconds if isinstance(exc, RetryAfter) else None,
        permanent=isinstance(exc, UserError),
    )


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as fault:
        return f"its message cannot be read: {type(fault).__qualname__}"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
