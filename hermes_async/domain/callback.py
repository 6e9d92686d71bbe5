"""A callback: somebody to be told, once and in order, of what became of a task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import Task


class CallbackKind(StrEnum):
    """Who is told: a function by the name that agents.yaml gives it, or a webhook."""

    ON_PROGRESS = "on_progress"
    ON_COMPLETE = "on_complete"
    ON_FAILURE = "on_failure"
    WEBHOOK = "webhook"


#: What an event makes due. A cancelled task has no result either, so `on_failure` hears of it.
AFTER: Final[dict[str, tuple[CallbackKind, ...]]] = {
    "task.progress": (CallbackKind.ON_PROGRESS,),
    "task.completed": (CallbackKind.ON_COMPLETE, CallbackKind.WEBHOOK),
    "task.failed": (CallbackKind.ON_FAILURE, CallbackKind.WEBHOOK),
    "task.cancelled": (CallbackKind.ON_FAILURE, CallbackKind.WEBHOOK),
}


#: After so many failed tries a function is not called any more.
TRIES: Final = 5
#: Seconds to the second try at most; each later wait is up to so many times the one before. Five tries
#: take less than a minute.
FIRST_DELAY: Final = 2.0
FACTOR: Final = 2.5
#: Failed tries of which a row keeps the errors.
KEPT_TRIES: Final = 5

#: What happened when a claim ran out.
CALLER_LOST: Final = ErrorInfo(type="CallerLost", message="the process that made the call was lost")


def delay_after(failures: int, chance: float) -> float | None:
    """Return the seconds until a function is called again: exponential with full jitter; None: never.

    Args:
        failures: tries that have failed.
        chance: a number in [0, 1) that spreads the tries.
    """
    return FIRST_DELAY * FACTOR ** (failures - 1) * chance if failures < TRIES else None


def wanted(options: SubagentSpec) -> tuple[CallbackKind, ...]:
    """Return the kinds of callbacks that a subagent asks for."""
    names, webhook = options.callbacks, options.webhook
    if not (webhook or names.on_complete or names.on_failure or names.on_progress):
        return ()  # as nearly all do, and each task asks
    return tuple(kind for kind in CallbackKind if name_of(options, kind))


def name_of(options: SubagentSpec, kind: CallbackKind) -> str:
    """Return who is told: the name of a function, or the URL of a webhook."""
    if kind is CallbackKind.WEBHOOK:
        return options.webhook.url if options.webhook else ""
    return getattr(options.callbacks, kind.value) or ""


def public_name(callback: Callback) -> str:
    """Return who is told, for everybody's eyes: the path of a webhook's URL may be a secret."""
    if callback.kind is not CallbackKind.WEBHOOK:
        return callback.name
    parts = urlsplit(callback.name)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def callback_id(task_id: str, kind: CallbackKind, seq: int = 0) -> str:
    """Return the id of a row: the same at every try, the key by which effects are recognised.

    A task may have news of its progress many times, so the `seq` of the event is part of the id then.
    """
    progress = kind is CallbackKind.ON_PROGRESS
    return f"{task_id}:{kind}:{seq}" if progress else f"{task_id}:{kind}"


class Try(BaseModel):
    """One try that failed, for whoever looks into the matter. Times are Unix seconds by Redis' clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    error: ErrorInfo


class Callback(BaseModel):
    """A row of the ledger: it is there until the callback has succeeded, or was given up and thrown away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: CallbackKind
    #: The function's name, or the webhook's URL.
    name: str
    session_id: str
    task_id: str
    #: Of the event that made it due.
    seq: int
    #: Tries that have failed, and the latest of them.
    failures: int = 0
    log: tuple[Try, ...] = ()
    #: It is tried no more, until somebody asks for that (`redeliver`).
    dead: bool = False
    #: When it may be tried next, if it is not its turn yet.
    due_at: float | None = None


@dataclass(frozen=True)
class Call:
    """A callback in the hands of a process that tries it now."""

    callback: Callback
    #: The record as it was when the call was claimed.
    task: Task
    #: Every claim of a line has a greater one; what an older one writes is refused.
    fence: int

    @property
    def id(self) -> str:
        """The id of the callback."""
        return self.callback.id
