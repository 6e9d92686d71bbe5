"""A task: one invocation of a subagent, as everybody sees it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.budget import Budget
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.usage import Usage


class TaskStatus(StrEnum):
    """Where a task stands; the last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def is_terminal(self) -> bool:
        """True when the task has ended and will never change again."""
        return self in TERMINAL

    @property
    def is_begun(self) -> bool:
        """True while an attempt is under way, be it that it waits for an answer."""
        return self in BEGUN


TERMINAL = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.REJECTED},
)
BEGUN = frozenset({TaskStatus.RUNNING, TaskStatus.INPUT_REQUIRED})


class Lane(StrEnum):
    """A queue with the pool that serves it."""

    ASYNC = "async"
    PROCESS = "process"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Progress(_Value):
    """How far a task is: percent from 0 to 100 (None when unknown) and a short message."""

    progress_percent: float | None = Field(default=None, ge=0, le=100)
    message: str = ""


class Address(_Value):
    """Where an agent runs, and how many of its tasks may run at once over all sessions."""

    lane: Lane = Lane.ASYNC
    concurrency_limit: int | None = None


#: What is not shown of a birth.
_INWARD = {"budgets", "options", "traceparent", "tracestate", "ordered"}


class Birth(_Value):
    """What is known of a task when it is dispatched, and never changes."""

    id: str
    session_id: str
    #: The agent on whose behalf the task runs; None for a task without a declared parent.
    parent: str | None = None
    #: The name by which the parent invoked it.
    subagent: str
    #: Arguments by parameter name, as JSON values.
    input: dict[str, JsonValue] = {}
    options: SubagentSpec
    to: Address = Address()
    #: Where the agent lives that takes over when the first has failed for good.
    fallback: Address | None = None
    #: W3C trace context of the dispatch.
    traceparent: str
    #: What other tracing systems have added to it.
    tracestate: str | None = None
    parent_task_id: str | None = None
    #: The attempt of the parent task that dispatched it.
    parent_attempt: int = 0
    root_task_id: str | None = None
    depth: int = 0
    #: The limits that bind it: those of the tasks above it, the uppermost first, and its own.
    budgets: tuple[Budget, ...] = ()
    #: The session's callbacks run one at a time, in the order of events.
    ordered: bool = True

    @field_validator("options")
    @classmethod
    def _keep_secrets_out(cls, options: SubagentSpec) -> SubagentSpec:
        return options.recorded()

    @property
    def trace_id(self) -> str:
        """The 32 hex digits that name the whole trace."""
        return self.traceparent.split("-")[1]


class Task(_Value):
    """The record of one invocation: the fold of its events. Times are Unix seconds by Redis' clock."""

    birth: Birth
    agent: str
    #: The lane of its next attempt, once that is not the one of its birth any more.
    moved_to: Lane | None = None
    status: TaskStatus = TaskStatus.QUEUED
    #: Counts claims from 1; it is also the fence: writes of an older attempt are refused.
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    worker: str | None = None
    #: Tells the claims of a worker apart: its process, and a number. It is no part of the fold.
    claim: str = ""
    cancel_requested: bool = False
    progress: Progress | None = None
    partials: dict[str, JsonValue] = {}
    #: What is asked and not answered yet; an attempt that was lost may have asked it.
    question: Question | None = None
    #: What was answered, by the id of the question: later attempts do not ask again.
    answers: dict[str, Answer] = {}
    output: JsonValue = None
    error: ErrorInfo | None = None
    reason: Reason | None = None
    #: What it has consumed, over all its attempts, and so has its whole tree, if it has limits. These are
    #: sums and no part of the fold: what is spent counts, whoever is too late to tell.
    usage: Usage | None = None
    tree_usage: Usage | None = None
    created_at: float = 0.0
    #: When its last attempt was taken back, to be repeated.
    queued_at: float | None = None
    started_at: float | None = None
    #: When its first attempt started, if its seconds are limited.
    began_at: float | None = None
    finished_at: float | None = None

    @property
    def id(self) -> str:
        """The id of the task; its first part names the partition of its session."""
        return self.birth.id

    @property
    def address(self) -> Address:
        """Where its next attempt runs."""
        home = self.birth.to
        if self.birth.fallback is not None and self.agent == self.birth.options.fallback:
            home = self.birth.fallback
        return home.model_copy(update={"lane": self.moved_to}) if self.moved_to else home

    @property
    def lane(self) -> Lane:
        """The lane of its next attempt."""
        return self.address.lane

    @property
    def session_id(self) -> str:
        """The session to which every event of the task goes."""
        return self.birth.session_id

    def as_json(self) -> dict[str, Any]:
        """Return what people and programs are shown: birth and state side by side."""
        state = self.model_dump(mode="json", exclude={"birth", "claim"})
        birth = self.birth.model_dump(mode="json", exclude=_INWARD)
        return {**birth, **state, "trace_id": self.birth.trace_id}


class TaskResult(_Value):
    """How a task ended, as callbacks and webhooks receive it."""

    task_id: str
    status: TaskStatus
    output: JsonValue = None
    error: ErrorInfo | None = None
    reason: Reason | None = None
    attempt: int
    usage: Usage | None = None
    trace_id: str

    @classmethod
    def of(cls, task: Task) -> TaskResult:
        """Return the result of a task that has ended."""
        return cls(
            task_id=task.id,
            status=task.status,
            output=task.output,
            error=task.error,
            reason=task.reason,
            attempt=task.attempt,
            usage=task.usage,
            trace_id=task.birth.trace_id,
        )


class TaskProgress(_Value):
    """How far a task is, as callbacks receive it."""

    task_id: str
    #: From 0 to 100; None when unknown.
    progress_percent: float | None = None
    message: str = ""
    attempt: int

    @classmethod
    def of(cls, task: Task) -> TaskProgress:
        """Return the newest progress of a task."""
        now = task.progress or Progress()
        return cls(
            task_id=task.id,
            progress_percent=now.progress_percent,
            message=now.message,
            attempt=task.attempt,
        )
