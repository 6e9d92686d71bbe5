"""Running one task: claim it, call the agent under its limits, settle what came of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import anyio

from hermes_async.core.aside import Aside, StepOut, stay
from hermes_async.core.children import Children
from hermes_async.core.company import Company
from hermes_async.core.context import TaskContext
from hermes_async.core.conversation import Conversation
from hermes_async.core.dispatch import Dispatcher, Origin
from hermes_async.core.journal import Journal, patiently
from hermes_async.core.limits import Limits
from hermes_async.core.present import Presence
from hermes_async.core.records import seen
from hermes_async.core.registry import Registry
from hermes_async.core.reporter import Reporter
from hermes_async.core.spending import Spending
from hermes_async.core.subagent import Subagent
from hermes_async.core.threads import run_in_thread
from hermes_async.core.tracing import Tracing
from hermes_async.domain.errors import (
    BudgetExceeded,
    HermesError,
    RetryAfter,
    TaskRejected,
    UnreadableTask,
    UserError,
)
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import (
    FINAL,
    Interrupted,
    Outcome,
    Raised,
    Returned,
    decide,
    out_of_time,
    unread,
)
from hermes_async.domain.task import Task

T = TypeVar("T")

_claims = itertools.count(1)

#: Characters of an exception's message and of its traceback that are kept.
MESSAGE_LENGTH, TRACEBACK_LENGTH = 2_000, 6_000


@dataclass(slots=True)
class Attempt:
    """A claimed task in the hands of this process."""

    task: Task
    subagent: Subagent[..., Any]
    reporter: Reporter
    limits: Limits
    tracing: Tracing
    #: Tells with whom an attempt deals.
    meet: Callable[[Attempt], Company]
    context: TaskContext = field(init=False)
    #: Made when it first deals with others, which most never do.
    aside: Aside | None = None
    children: Children | None = None
    spending: Spending | None = None
    #: Its agent is done.
    is_over: bool = False
    #: The coroutine that runs it, where that is what to cancel.
    owner: asyncio.Task[Any] | None = None
    #: It was given to somebody else, or will be: nothing is to be written of it any more.
    is_lost: bool = False

    def company(self) -> Company:
        """Return with whom it deals."""
        return self.meet(self)

    def abandon(self) -> None:
        """Stop working on what is not ours any more."""
        self.is_lost = self.context.cancelled = True
        if self.owner is not None:
            self.owner.cancel()

    def here(self) -> Presence:
        """Within this, the agent runs: what it logs and traces belongs to the attempt."""
        return Presence(self.task, self.tracing.attempt(self.task))

    def call(self) -> Any:
        """Call the agent's function with its validated input; an `async def` gives its coroutine."""
        arguments = self.subagent.signature.validate(self.task.birth.input)
        return self.subagent.function(self.context, **arguments)

    async def finish(self) -> Any:
        """Await an agent that is an `async def`, and then the ends of the tasks that it has dispatched."""
        value = await self.call()
        await self.children_end()
        return value

    async def children_end(self) -> None:
        """Wait until the tasks that it has dispatched have ended; nothing more is begun for it."""
        if self.children is not None:
            await self.children.ended()
        self.close()

    def close(self) -> None:
        """From now on it dispatches nothing, and needs no place among the limits."""
        self.is_over = True
        if self.aside is not None:
            self.aside.is_over = True

    async def call_in_thread(self) -> Any:
        """Call a `def`, which must not hold up the loop.

        Each has a thread of its own: of a few for all, who waits for children would leave them none.
        """
        return await run_in_thread(self.call, f"hermes-task {self.task.id}", refusable=False)

    def returned(self, value: object) -> Returned:
        """Return the outcome of a function that came back with `value`."""
        return Returned(self.subagent.signature.returned(value, self.task.agent))

    def timed_out(self) -> Raised:
        """Return the outcome of an attempt that took longer than it may."""
        reason = self.limits.reason or Reason.TIMEOUT
        if reason in FINAL:
            return Raised(out_of_time(self.task, reason), reason, permanent=True)
        return Raised(ErrorInfo(type="TimeoutError", message=self.limits.told()), reason, ("TimeoutError",))


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
        #: Bound once, since each attempt has it.
        self._meet = self._company

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
        token = f"{os.getpid()}-{next(_claims)}"  # no other claim of this worker has it
        claim = partial(self._journal.store.claim, task_id, self._worker, self._lease, token)
        try:
            task = await patiently(claim, f"the start of {task_id}")
        except UnreadableTask as exc:
            await self._written(exc.known, unread(exc))
            return None
        if task is None:
            return None
        try:
            subagent = self._registry.agent(task.agent)
        except UserError as exc:  # this worker does not have what the dispatcher had
            await self._written(task, decide(task, raised(exc)))
            return None
        limits = Limits(task)
        reporter = Reporter(task, self._journal, limits.sign)
        attempt = Attempt(task, subagent, reporter, limits, self._journal.tracing, self._meet)
        attempt.context = TaskContext(task, reporter, attempt.company)
        attempt.context.cancelled = task.cancel_requested
        reporter.on_lost = attempt.abandon
        return attempt

    def _company(self, attempt: Attempt) -> Company:
        task, store = attempt.task, self._journal.store
        aside = attempt.aside = Aside(task, store, attempt.limits, self._step_out)
        aside.is_over = attempt.is_over
        conversation = Conversation(task, store, aside, attempt.limits.began)
        conversation.on_lost = attempt.abandon
        attempt.children = Children(self._dispatcher.of(Origin.of(task), aside))
        spending = attempt.spending = Spending(task, store, attempt.limits.sign)
        spending.on_lost = attempt.abandon
        return Company(attempt.children, conversation, spending)

    async def settle(self, attempt: Attempt, outcome: Outcome) -> AnyEvent | None:
        """Write how the attempt ended; return that event, or None when the attempt was no longer ours.

        Whoever cancels meanwhile comes too late.
        """
        attempt.context.cancelled |= not isinstance(outcome, Returned)  # a thread may still be at work
        attempt.close()
        return await _to_the_end(self._settle(attempt, outcome))

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> AnyEvent | None:
        await attempt.reporter.close()
        task = attempt.task
        if attempt.is_lost:  # even if it is in nobody's hands yet
            attempt.tracing.ended(task, None)
            return None
        if attempt.children is not None:  # the pen stops those that it knows, if the attempt has failed
            await attempt.children.known()
        if not isinstance(outcome, Returned):  # only then it matters whether somebody asked to cancel
            task = await self._latest(task)
        if attempt.spending is not None:
            await attempt.spending.close()
            task = task.model_copy(update={"usage": attempt.spending.usage})
        event = decide(task, outcome, chance=random.random())
        return await self._written(task, event)

    async def _written(self, task: Task, event: AnyEvent) -> AnyEvent | None:
        """Write how an attempt of ours ended, and tell its trace what the record says."""
        said = event if await self._journal.insist(event, own=True) else None
        self._journal.tracing.ended(task, said)
        return said

    async def _latest(self, task: Task) -> Task:
        current = await patiently(lambda: seen(self._journal.store, task.id), f"the end of {task.id}")
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
                with attempt.here():
                    if attempt.subagent.is_async:  # `finish`, without holding a coroutine for it
                        value = await attempt.call()
                        await attempt.children_end()
                    else:
                        value = await attempt.call_in_thread()
                    return attempt.returned(value)
        except asyncio.CancelledError:
            return _interrupted()
        except BaseException as exc:  # what an agent makes of being aborted is no reason of its own
            return attempt.timed_out() if limit.expired() else raised(exc)
        finally:
            attempt.limits.stop()


def is_claimed_in(task: Task, process: int) -> bool:
    """Return whether it was in this process of its worker that the latest attempt was claimed."""
    return task.claim.startswith(f"{process}-")


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
    """Return the outcome of an agent that raised `exc`, on its own or because its budget was spent."""
    broke = next(filter(_is_broke, _causes(exc)), None)
    if broke is not None:
        return replace(_raised(broke), reason=Reason.BUDGET_EXCEEDED, permanent=True)
    return _raised(exc)


def _is_broke(exc: BaseException) -> bool:
    refused = isinstance(exc, TaskRejected) and exc.reason is Reason.BUDGET_EXCEEDED
    return refused or isinstance(exc, BudgetExceeded)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and all that it stands for or follows from."""
    found = [exc]
    for each in found:  # it grows meanwhile
        yield each
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        found += (part for part in (*parts, each.__cause__, each.__context__) if part and part not in found)


def _raised(exc: BaseException) -> Raised:
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
