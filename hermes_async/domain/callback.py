"""A callback: somebody to be told, once and in order, of what became of a task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

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


def wanted(options: SubagentSpec) -> tuple[CallbackKind, ...]:
    """Return the kinds of callbacks that a subagent asks for."""
    said: dict[CallbackKind, object] = {
        CallbackKind.ON_PROGRESS: options.callbacks.on_progress,
        CallbackKind.ON_COMPLETE: options.callbacks.on_complete,
        CallbackKind.ON_FAILURE: options.callbacks.on_failure,
        CallbackKind.WEBHOOK: options.webhook,
    }
    return tuple(kind for kind, value in said.items() if value)


def name_of(options: SubagentSpec, kind: CallbackKind) -> str:
    """Return who is told: the name of a function, or the URL of a webhook."""
    if kind is CallbackKind.WEBHOOK:
        return options.webhook.url if options.webhook else ""
    return getattr(options.callbacks, kind.value) or ""


def callback_id(task_id: str, kind: CallbackKind) -> str:
    """Return the id of a task's callback: the same at every try, the key by which effects are recognised."""
    return f"{task_id}:{kind}"


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
    #: Of the event of which it tells.
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
