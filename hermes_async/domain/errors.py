"""Every error of the project, grouped by whose fault it is; each message names the cure.

HermesError
├── UserError                 yours: fix the code, the file or the command
│   ├── ConfigError             agents.yaml or an environment variable is wrong
│   ├── UnknownAgent            no agent or subagent of that name
│   ├── UnknownTask             no such task (or not yours)
│   ├── InvalidInput            the input does not fit the agent's signature
│   ├── IdempotencyConflict     same key, different input or session
│   ├── NotTaken                the task does not take this answer or message
│   ├── Closed                  it was closed before, or meanwhile: open another
│   ├── Unauthorized            the token is missing, wrong or expired
│   └── Forbidden               the token does not allow it
├── RetryAfter                raised by an agent: try again later
├── TurnFailed                a chat's model has not answered; what was said is kept
├── ModelFailed               raised within a declared agent: its model gives no answer
├── ToolFailed                raised by a tool: the model reads the message
├── QuestionTimeout           raised within an agent: nobody has answered in time
├── BudgetExceeded            raised within an agent: a limit of its task, or of one above it, is reached
├── TaskError                 the task's: it ended without a result
│   ├── TaskFailed              see .reason and .error
│   ├── TaskCancelled
│   └── TaskRejected            never accepted: a limit said no
├── StoreDamaged              ours: what Redis keeps of a task or a session cannot be worked with
│   └── UnreadableTask          a task's record: a newer version wrote it, or it is damaged
└── ServiceError              ours, or the servers': nothing was accepted, try again
    ├── StoreUnavailable        Redis cannot be reached
    ├── QueueUnavailable        the broker cannot be reached
    ├── RelayUnavailable        no relay answers
    └── EmbeddedServerError     the private Redis server cannot be started
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from hermes_async.domain.failure import ErrorInfo, Reason


class HermesError(Exception):
    """The root of every error that hermes_async raises on purpose."""


class UserError(HermesError):
    """Something you wrote needs fixing."""


class ConfigError(UserError):
    """The configuration is wrong; the message begins with `file:line:column:`."""


class UnknownAgent(UserError):
    """No agent or subagent has that name."""


class UnknownTask(UserError):
    """No task has that id, or it belongs to a session that you may not see."""


class InvalidInput(UserError):
    """The input does not fit the agent's signature, or cannot be written as JSON."""


class IdempotencyConflict(UserError):
    """The idempotency key was used before with another input, or in another session of its circle."""


class NotTaken(UserError):
    """The task does not take it: nothing is asked, somebody was first, it has ended, too much is unread."""


class Closed(UserError):
    """What is used was closed before, or is closed while somebody waits for it; open another."""


class Unauthorized(UserError):
    """The token is missing, wrong, expired, or names other sessions."""


class Forbidden(UserError):
    """The token allows to hear, not to command."""


class RetryAfter(HermesError):
    """Raised by an agent whose next attempt, if its retries allow one, should wait."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"asked to try again after {seconds:g} s")
        self.seconds = seconds


class TurnFailed(HermesError):
    """A turn of a chat has no answer: the model is away, or a limit is reached; what was said is kept."""


class ModelFailed(HermesError):
    """Raised within a declared agent whose model gives no answer; another attempt may get one."""


class ToolFailed(HermesError):
    """Raised by a tool that cannot do what was asked; the message is what the model reads of it."""


class QuestionTimeout(HermesError):
    """Raised within an agent whose question nobody has answered in time."""


class BudgetExceeded(HermesError):
    """Raised within an agent by what it may not spend, or has spent, beyond a limit; no attempt follows."""


class TaskError(HermesError):
    """The task ended without a result."""

    def __init__(self, message: str, *, task_id: str, reason: Reason | None, error: ErrorInfo | None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.reason = reason
        self.error = error


class TaskFailed(TaskError):
    """The task failed; `.reason` says why and `.error` what was raised."""


class TaskCancelled(TaskError):
    """The task was cancelled."""


class TaskRejected(TaskError):
    """The task was never accepted; of a `dispatch_many`, `.accepted` names those of the others that were."""

    #: Their ids, in the order of their inputs; a task that dispatches has none: they were stopped.
    accepted: tuple[str, ...] = ()


class StoreDamaged(HermesError):
    """What the store keeps of something is damaged or not ours: trying again is no use, and others go on."""


class UnreadableTask(StoreDamaged):
    """This version cannot read a task's record: a newer one wrote it, or it is damaged."""

    def __init__(self, message: str, known: Any = None) -> None:
        super().__init__(message)
        #: A `Task` with what can be said of it all the same; it has no input and no output.
        self.known = known


class ServiceError(HermesError):
    """A server that is needed does not answer; nothing was accepted, so trying again is safe."""


class StoreUnavailable(ServiceError):
    """The Redis that keeps the state cannot be reached."""


class QueueUnavailable(ServiceError):
    """The broker cannot be reached."""


class RelayUnavailable(ServiceError):
    """No relay answers."""


class EmbeddedServerError(ServiceError):
    """The private Redis server cannot be found or started."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `known`, or an empty string."""
    found = nearest(name, known)
    return f"; did you mean {found!r}?" if found is not None else ""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return which of `known` is most like `name`, if one is as alike as the cutoff (1: the same)."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)
