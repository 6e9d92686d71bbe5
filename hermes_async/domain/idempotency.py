"""Within which circle an idempotency key means one task, and what is said when it cannot mean it."""

from __future__ import annotations

from hermes_async.domain.agent import Idempotency
from hermes_async.domain.errors import IdempotencyConflict
from hermes_async.domain.task import Birth


def rule_of(birth: Birth) -> Idempotency:
    """Return how a task is known by its idempotency key."""
    return birth.options.idempotency or Idempotency()


def circle_of(birth: Birth) -> str:
    """Return the circle of a task's idempotency key; no two circles are told by the same text."""
    scope = rule_of(birth).scope
    if scope == "session":
        return f"session:{len(birth.session_id)}:{birth.session_id}"
    return f"parent:{birth.parent or ''}" if scope == "parent" else "global"


def used_otherwise(key: str, task_id: str) -> IdempotencyConflict:
    """Return the refusal of a key that stands for another input."""
    return IdempotencyConflict(f"idempotency key {key!r} was used with another input, by task {task_id}")


def used_elsewhere(key: str) -> IdempotencyConflict:
    """Return the refusal of a key that stands for a task of another session, of which nothing is told."""
    return IdempotencyConflict(
        f"idempotency key {key!r} was used in another session, which hears of its task; use another key"
    )
