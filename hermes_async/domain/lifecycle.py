"""The law of a task's life: which event may follow which status, what it changes, what an outcome means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.budget import seconds_are_over
from hermes_async.domain.errors import HermesError, UnreadableTask
from hermes_async.domain.events import (
    AnyEvent,
    AttemptLostData,
    CompletedData,
    FailedData,
    RetryingData,
    task_event,
)
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.question import Answer
from hermes_async.domain.task import Lane, Task, TaskStatus

S = TaskStatus

#: How often a task may kill its worker before it is given up as poison.
MAX_LOSSES = 3
#: After so many losses a task runs in the process lane, alone in its process: whoever shared a worker with
#: the poison is told apart from it there.
SUSPECT_LOSSES = MAX_LOSSES - 1

#: What no other agent could do better either.
FINAL = frozenset({Reason.TOTAL_TIMEOUT, Reason.BUDGET_EXCEEDED})

#: Seconds; no agent may ask for a longer wait before its next attempt.
LONGEST_DELAY = 31_536_000.0

#: For each status, the events that may come next. What is not here is refused.
LEGAL: dict[TaskStatus, frozenset[str]] = {
    S.QUEUED: frozenset(
        {
            "task.started",
            "task.message",
            "task.answered",
            "task.cancel_requested",
            "task.cancelled",
            "task.failed",
            "task.rejected",
        },
    ),
    S.RUNNING: frozenset(
        {
            "task.progress",
            "task.partial",
            "task.message",
            "task.message_applied",
            "task.input_required",
            "task.answered",
            "task.cancel_requested",
            "task.retrying",
            "task.attempt_lost",
            "task.completed",
            "task.failed",
            "task.cancelled",
            "session.message",
        },
    ),
    S.INPUT_REQUIRED: frozenset(  # while one branch of the agent waits, others go on, and may end it
        {
            "task.progress",
            "task.partial",
            "task.message",
            "task.message_applied",
            "task.resumed",
            "task.cancel_requested",
            "task.retrying",
            "task.attempt_lost",
            "task.completed",
            "task.failed",
            "task.cancelled",
            "session.message",
        },
    ),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.REJECTED: frozenset(),
}

#: The status that an event brings; an event that is not here leaves it as it is.
TARGET: dict[str, TaskStatus] = {
    "task.started": S.RUNNING,
    "task.input_required": S.INPUT_REQUIRED,
    "task.resumed": S.RUNNING,
    "task.retrying": S.QUEUED,
    "task.attempt_lost": S.QUEUED,
    "task.completed": S.COMPLETED,
    "task.failed": S.FAILED,
    "task.cancelled": S.CANCELLED,
    "task.rejected": S.REJECTED,
}

#: What ends an attempt in vain: the tasks that it has dispatched are asked to stop.
IN_VAIN = frozenset({"task.failed", "task.retrying", "task.attempt_lost"})

#: The field that takes the event's time.
STAMP: dict[str, str] = {
    "task.queued": "created_at",
    "task.started": "started_at",
    "task.retrying": "queued_at",
    "task.attempt_lost": "queued_at",
    "task.completed": "finished_at",
    "task.failed": "finished_at",
    "task.cancelled": "finished_at",
    "task.rejected": "finished_at",
}

#: The fields that are taken from the event's data as they are.
COPIED: dict[str, tuple[str, ...]] = {
    "task.started": ("worker",),
    "task.retrying": ("error", "reason", "failures"),
    "task.attempt_lost": ("losses",),
    "task.completed": ("output",),
    "task.failed": ("reason", "error"),
    "task.rejected": ("reason", "error"),
}

#: The field that says where the next attempt runs, if the event moves the task.
MOVING: dict[str, str] = {"task.retrying": "agent", "task.attempt_lost": "moved_to"}

#: The fields that an event sets to the same value every time.
FIXED: dict[str, dict[str, Any]] = {
    "task.started": {"progress": None},
    "task.cancel_requested": {"cancel_requested": True},
    "task.resumed": {"question": None},
    "task.answered": {"question": None},
    "task.completed": {"error": None, "reason": None, "question": None},
    "task.failed": {"question": None},
    "task.cancelled": {"error": None, "reason": None, "question": None},
    "task.rejected": {"question": None},
}

TERMINAL_TYPES = frozenset(name for name, status in TARGET.items() if status.is_terminal)

#: Written by others than the owner of the attempt, so the attempt that they saw does not matter.
UNFENCED = frozenset({"task.cancel_requested"})

#: Written by methods of their own (`core/dialogue.py`), because there the pen has more to see to.
DIALOGUE = frozenset(
    {"task.input_required", "task.resumed", "task.answered", "task.message", "task.message_applied"}
)


class IllegalTransition(HermesError):
    """That event cannot follow that status."""


def allowed_from(event_type: str) -> list[TaskStatus]:
    """Return the statuses in which an event of this type may happen."""
    return [status for status, types in LEGAL.items() if event_type in types]


def changes(event: AnyEvent) -> dict[str, Any]:
    """Return the fields of the record that the event sets, but for times, named partials and answers."""
    fields = {name: getattr(event.data, name) for name in COPIED.get(event.type, ())}
    fields |= FIXED.get(event.type, {})
    if moves(event):
        fields[MOVING[event.type]] = getattr(event.data, MOVING[event.type])
    if event.type in TARGET:
        fields["status"] = TARGET[event.type]
    if event.type == "task.started":
        fields["attempt"] = event.attempt
    if event.type == "task.progress":
        fields["progress"] = event.data
    if event.type == "task.input_required":
        fields["question"] = event.data
    return fields


def moves(event: AnyEvent) -> bool:
    """Return whether the event sends its task to another agent or lane."""
    return event.type in MOVING and getattr(event.data, MOVING[event.type]) is not None


def apply(task: Task, event: AnyEvent) -> Task:
    """Return the task as it is after the event.

    Raises:
        IllegalTransition: the event cannot follow the task's status.
    """
    if event.type not in LEGAL[task.status]:
        raise IllegalTransition(f"{event.type} cannot follow status `{task.status}` of task {task.id}")
    update = changes(event)
    if event.type in STAMP:
        update[STAMP[event.type]] = event.time
    if event.type == "task.started" and event.attempt == 1 and task.birth.options.limits.seconds:
        update["began_at"] = event.time
    if event.type == "task.partial":
        update["partials"] = {**task.partials, event.data.name: event.data.value}
    if isinstance(event.data, Answer) and event.data.stands:
        update["answers"] = {**task.answers, event.data.question_id: event.data}
    return task.model_copy(update=update)


@dataclass(frozen=True)
class Returned:
    """The agent's function came back with a value."""

    value: JsonValue


@dataclass(frozen=True)
class Raised:
    """The agent's function raised, or ran out of time."""

    error: ErrorInfo
    reason: Reason = Reason.ERROR
    #: Qualified names of the exception's classes, nearest first; `non_retryable` is matched against them.
    kinds: tuple[str, ...] = ()
    #: Seconds that the agent asked to wait before the next attempt.
    retry_after: float | None = None
    #: Trying again cannot help: the input or the result does not fit, whoever runs it.
    permanent: bool = False


@dataclass(frozen=True)
class Interrupted:
    """The attempt was cancelled from outside: by a person, or by the shutdown of its worker."""


@dataclass(frozen=True)
class Lost:
    """The worker stopped renewing the attempt's lease."""


@dataclass(frozen=True)
class Overdue:
    """The task's time was over before it had ended, or begun."""

    reason: Reason


Outcome = Returned | Raised | Interrupted | Lost | Overdue


def decide(task: Task, outcome: Outcome, *, chance: float = 1.0) -> AnyEvent:
    """Return the one event that follows the end of an attempt.

    Args:
        task: the record while the attempt was running.
        outcome: how the attempt ended.
        chance: a number in [0, 1) that spreads the retries (full jitter).
    """
    if isinstance(outcome, Returned):
        data = CompletedData(output=outcome.value, usage=task.usage)
        return task_event(task, "task.completed", data)
    if task.cancel_requested:
        return task_event(task, "task.cancelled")
    if isinstance(outcome, Interrupted):
        return task_event(task, "task.attempt_lost", AttemptLostData(cause="shutdown", losses=task.losses))
    if isinstance(outcome, Lost):
        return _after_loss(task)
    if isinstance(outcome, Overdue):
        failed = FailedData(reason=outcome.reason, error=out_of_time(task, outcome.reason), usage=task.usage)
        return task_event(task, "task.failed", failed)
    return _after_failure(task, outcome, chance)


def unread(exc: UnreadableTask) -> AnyEvent:
    """Return the one event that follows when a task's record cannot be read: nobody can run it."""
    return decide(exc.known, Raised(ErrorInfo(type="UnreadableTask", message=str(exc)), permanent=True))


def out_of_time(task: Task, reason: Reason) -> ErrorInfo:
    """Return which time of a task is over; not which one of its attempt."""
    options = task.birth.options
    if reason is Reason.BUDGET_EXCEEDED:
        return ErrorInfo(type="BudgetExceeded", message=seconds_are_over(task.id, options.limits))
    if reason is Reason.EXPIRED:
        told = f"not started within its queue_timeout of {options.queue_timeout:g} s"
    else:
        told = f"not done within its total_timeout of {options.total_timeout:g} s"
    return ErrorInfo(type="TimeoutError", message=told)


def _after_loss(task: Task) -> AnyEvent:
    losses = task.losses + 1
    if losses < MAX_LOSSES:
        moved_to = Lane.PROCESS if losses >= SUSPECT_LOSSES else None
        data = AttemptLostData(cause="worker_lost", losses=losses, moved_to=moved_to)
        return task_event(task, "task.attempt_lost", data)
    error = ErrorInfo(type="WorkerLost", message=f"the worker was lost {losses} times while it ran this task")
    return _for_good(task, Raised(error, Reason.WORKER_LOST))


def _for_good(task: Task, outcome: Raised) -> AnyEvent:
    """Return what follows when an agent will not be tried again: its fallback, or the end."""
    fallback = task.birth.options.fallback
    if fallback is None or task.agent == fallback or outcome.reason in FINAL:
        failed = FailedData(reason=outcome.reason, error=outcome.error, usage=task.usage)
        return task_event(task, "task.failed", failed)
    retrying = RetryingData(error=outcome.error, reason=outcome.reason, delay=0.0, failures=0, agent=fallback)
    return task_event(task, "task.retrying", retrying)


def _after_failure(task: Task, outcome: Raised, chance: float) -> AnyEvent:
    failures = task.failures + 1
    if not _may_retry(task.birth.options, outcome, failures):
        return _for_good(task, outcome)
    asked = outcome.retry_after
    delay = backoff(task, failures, chance) if asked is None else min(max(0.0, asked), LONGEST_DELAY)
    retrying = RetryingData(error=outcome.error, reason=outcome.reason, delay=delay, failures=failures)
    return task_event(task, "task.retrying", retrying)


def _may_retry(options: SubagentSpec, outcome: Raised, failures: int) -> bool:
    if outcome.permanent or failures > options.retries:
        return False
    return not set(outcome.kinds) & set(options.retry.non_retryable)


def backoff(task: Task, failures: int, chance: float) -> float:
    """Return the seconds to wait before the next attempt: exponential with full jitter.

    The rule is "full jitter" of M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015):
    a uniform draw between zero and the capped exponential step.
    """
    policy = task.birth.options.retry
    try:
        step = min(policy.maximum, policy.initial * policy.factor ** (failures - 1))
    except OverflowError:
        step = policy.maximum
    return step * chance if policy.jitter else step
