"""Why a task is not accepted, in sentences that a person and a model can act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hermes_async.domain.budget import budget_is_spent
from hermes_async.domain.errors import NotTaken, TaskRejected
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.task import Task
from hermes_async.domain.usage import ONE_REQUEST, Usage

#: What a parent task is whose attempt has ended, or will in this moment.
NOT_RUNNING: Final = "not running this attempt any more"


def too_many_wait(task: Task, waiting: int) -> TaskRejected:
    """Return the refusal of a task because of `limits.max_queued`."""
    return _limit(
        task, f"{waiting} tasks wait already, which is the limit; ask again when some of them have ended"
    )


def too_deep(task: Task, limit: int) -> TaskRejected:
    """Return the refusal of a task because of `limits.max_depth`."""
    return _limit(
        task, f"tasks may be delegated {limit} levels deep, and this would be one more; do the work yourself"
    )


def nothing_left(task: Task, trees: Sequence[Usage]) -> TaskRejected:
    """Return the refusal of a child because of a budget, given what the tree of each has consumed."""
    for budget, used in zip(task.birth.budgets, trees, strict=True):
        if told := budget.refuses(used, ONE_REQUEST):
            why = f"{budget_is_spent(budget.task_id, told)}; finish with what you have"
            return _limit(task, why, Reason.BUDGET_EXCEEDED)
    raise ValueError(f"every budget of {task.id} has something left")


def parent_has_ended(task: Task, status: str) -> TaskRejected:
    """Return the refusal of a child whose parent task has nothing to say any more."""
    why = f"its parent task {task.birth.parent_task_id} is {status}"
    return _refusal(task, f"{task.agent} was not accepted: {why}", None)


def too_much_unread(task_id: str, unread: int) -> NotTaken:
    """Return the refusal of a message that a task would not read soon."""
    return NotTaken(f"task {task_id} has {unread} messages to read already; send more when it has read them")


def too_many_messages(task_id: str, kept: int) -> NotTaken:
    """Return the refusal of a message to a task that has had too many."""
    return NotTaken(f"task {task_id} has had {kept} messages, and no more are kept; dispatch another task")


def not_asked(task: Task, question: str | None) -> NotTaken:
    """Return the refusal of an answer."""
    if task.status.is_terminal:
        return has_ended(task)
    if question in task.answers:
        return NotTaken(f"question {question} of task {task.id} has its answer already: somebody was first")
    if task.question is None:
        return NotTaken(f"task {task.id} asks nothing now; it is {task.status}")
    return NotTaken(
        f"task {task.id} does not ask {(question or '')[:80]!r} now, but {task.question.question_id}"
    )


def has_ended(task: Task) -> NotTaken:
    """Return the refusal of what comes too late."""
    return NotTaken(f"task {task.id} has ended: it is {task.status}")


def _limit(task: Task, why: str, reason: Reason = Reason.LIMIT_EXCEEDED) -> TaskRejected:
    return _refusal(task, f"{task.agent} was not accepted: {why}", reason)


def _refusal(task: Task, message: str, reason: Reason | None) -> TaskRejected:
    error = ErrorInfo(type="TaskRejected", message=message)
    return TaskRejected(message, task_id=task.id, reason=reason, error=error)
