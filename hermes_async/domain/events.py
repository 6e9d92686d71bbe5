"""The news of a session: one envelope, discriminated on `type`, the same on every transport."""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Lane, Progress, Task, TaskStatus
from hermes_async.domain.trusted import trusted
from hermes_async.domain.usage import Usage


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer version may say more


class Nothing(_Value):
    """An event that says all by its type."""


class QueuedData(_Value):
    """Who was asked, by whom, and how urgently (9 is first)."""

    subagent: str
    parent: str | None = None
    parent_task_id: str | None = None
    priority: int = 5


class StartedData(_Value):
    """Which worker claimed the attempt."""

    worker: str


class PartialData(_Value):
    """A partial result; a later one of the same name replaces it."""

    name: str
    value: JsonValue


class MessageData(_Value):
    """Something said to the parent (`session.message`) or to a running agent (`task.message`)."""

    text: str
    data: JsonValue = None


class RestoredData(_Value):
    """Up to which `seq` somebody may have read what is not in the log any more."""

    through: int


class UnreadableData(_Value):
    """What an event is called that this version cannot read."""

    type: str


class AppliedData(_Value):
    """Which `task.message`, by its `seq`, an attempt has read."""

    message: int


class CancelRequestedData(_Value):
    """How the cancel is meant: `force` kills instead of asking."""

    force: bool = False


class RetryingData(_Value):
    """A failed attempt that will be repeated after `delay` seconds."""

    error: ErrorInfo
    reason: Reason = Reason.ERROR
    delay: float
    failures: int
    #: The agent that takes over, when its own retries are spent.
    agent: str | None = None


class AttemptLostData(_Value):
    """An attempt that ended without a word: a crash (counted in `losses`) or a shutdown (not counted)."""

    cause: Literal["worker_lost", "shutdown"]
    losses: int
    #: The lane to which it moves, where it cannot take others with it.
    moved_to: Lane | None = None


class CompletedData(_Value):
    """The value that the agent returned."""

    output: JsonValue = None
    usage: Usage | None = None


class FailedData(_Value):
    """Why there will be no result."""

    reason: Reason
    error: ErrorInfo
    usage: Usage | None = None


class RejectedData(_Value):
    """Why the task was never accepted."""

    reason: Reason
    error: ErrorInfo


class CallbackData(_Value):
    """Which callback of which task, and what it raised."""

    name: str
    error: ErrorInfo | None = None


D = TypeVar("D", bound=BaseModel)
T = TypeVar("T", bound=str)


class Event(_Value, Generic[T, D]):
    """One line of a session's log.

    `seq` is dense per session and is the only order; `id` is `task:attempt:n` and names the same fact
    however often it is written; `time` is Unix seconds by Redis' clock, for reading only.
    """

    seq: int = 0
    id: str
    type: T
    time: float = 0.0
    session_id: str
    task_id: str | None = None
    agent: str | None = None
    attempt: int = 0
    trace_id: str | None = None
    data: D

    @property
    def ordinal(self) -> int:
        """The place of a repeatable event within its attempt; 0 for one that happens once."""
        last = self.id.rpartition(":")[2]
        return int(last) if last.isdecimal() else 0


Queued = Event[Literal["task.queued"], QueuedData]
Started = Event[Literal["task.started"], StartedData]
Progressed = Event[Literal["task.progress"], Progress]
Partial = Event[Literal["task.partial"], PartialData]
TaskMessage = Event[Literal["task.message"], MessageData]
MessageApplied = Event[Literal["task.message_applied"], AppliedData]
InputRequired = Event[Literal["task.input_required"], Question]
Resumed = Event[Literal["task.resumed"], Answer]
Answered = Event[Literal["task.answered"], Answer]
CancelRequested = Event[Literal["task.cancel_requested"], CancelRequestedData]
Retrying = Event[Literal["task.retrying"], RetryingData]
AttemptLost = Event[Literal["task.attempt_lost"], AttemptLostData]
Completed = Event[Literal["task.completed"], CompletedData]
Failed = Event[Literal["task.failed"], FailedData]
Cancelled = Event[Literal["task.cancelled"], Nothing]
Rejected = Event[Literal["task.rejected"], RejectedData]
SessionMessage = Event[Literal["session.message"], MessageData]
SessionRestored = Event[Literal["session.restored"], RestoredData]
SessionUnreadable = Event[Literal["session.unreadable"], UnreadableData]
CallbackSucceeded = Event[Literal["callback.succeeded"], CallbackData]
CallbackFailed = Event[Literal["callback.failed"], CallbackData]
CallbackDead = Event[Literal["callback.dead"], CallbackData]

AnyEvent = Annotated[
    Queued
    | Started
    | Progressed
    | Partial
    | TaskMessage
    | MessageApplied
    | InputRequired
    | Resumed
    | Answered
    | CancelRequested
    | Retrying
    | AttemptLost
    | Completed
    | Failed
    | Cancelled
    | Rejected
    | SessionMessage
    | SessionRestored
    | SessionUnreadable
    | CallbackSucceeded
    | CallbackFailed
    | CallbackDead,
    Field(discriminator="type"),
]
ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)

#: Every event type with the class of its envelope.
CLASSES: dict[str, type[Event[Any, Any]]] = {
    get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(get_args(AnyEvent)[0])
}

#: An end may hide in it: whoever waits for one looks into the record.
UNREADABLE: Final = "session.unreadable"
#: Characters of the name of an unknown type.
LONGEST_TYPE: Final = 100

#: What a parent must not miss: these wait in its inbox until they are acknowledged.
INBOX_TYPES = frozenset(
    {
        "task.completed",
        "task.failed",
        "task.cancelled",
        "task.rejected",
        "task.input_required",
        "session.message",
    },
)


def restored(session_id: str, through: int) -> AnyEvent:
    """Return the event of a log that has lost what it said; it goes on beyond `through`."""
    return SessionRestored(
        id=f"{session_id}:{through}:restored",
        type="session.restored",
        session_id=session_id,
        data=RestoredData(through=through),
    )


def parse(value: dict[str, Any]) -> AnyEvent:
    """Return the event that a transport delivered as plain JSON values.

    Raises:
        ValidationError: it is none, of whatever version.
    """
    try:
        return ADAPTER.validate_python(value)
    except ValidationError:
        return SessionUnreadable(**(value | unreadable(value.get("type"))))


def unreadable(type_: object) -> dict[str, Any]:
    """Return type and data of what takes the place of an event that a newer version wrote, or is damaged."""
    return dict[str, Any](type="session.unreadable", data=UnreadableData(type=str(type_)[:LONGEST_TYPE]))


def task_event(task: Task, type_: str, data: BaseModel | None = None, *, n: int | str = "") -> AnyEvent:
    """Return an event of `task` in its present attempt.

    Args:
        task: the record as it is before the event.
        type_: for example `task.progress`.
        data: the payload that belongs to the type; None for types that need none.
        n: the ordinal of a repeatable event within its attempt; others happen once and use their own name.
    """
    word = n if n != "" else type_.removeprefix("task.")
    envelope = {
        "id": f"{task.id}:{task.attempt}:{word}",
        "type": type_,
        "session_id": task.session_id,
        "task_id": task.id,
        "agent": task.agent,
        "attempt": task.attempt,
        "trace_id": task.birth.trace_id,
        "data": data if data is not None else Nothing(),
    }
    return trusted(CLASSES[type_], envelope)


def callback_event(task: Task, id_: str, type_: str, data: BaseModel) -> AnyEvent:
    """Return an event that a callback of `task` has brought about."""
    return task_event(task, type_, data).model_copy(update={"id": id_})


def queued(task: Task) -> AnyEvent:
    """Return the first event of a task."""
    return task_event(task, "task.queued", queued_data(task))


def end_of(task: Task) -> AnyEvent:
    """Return the last event of a task that has ended, from its record; it has no `seq`."""
    error = task.error or ErrorInfo(type="")
    data: dict[TaskStatus, BaseModel] = {
        TaskStatus.COMPLETED: CompletedData(output=task.output, usage=task.usage),
        TaskStatus.FAILED: FailedData(reason=task.reason or Reason.ERROR, error=error, usage=task.usage),
        TaskStatus.REJECTED: RejectedData(reason=task.reason or Reason.LIMIT_EXCEEDED, error=error),
    }
    return task_event(task, f"task.{task.status}", data.get(task.status))


def asked(task: Task, question: Question) -> AnyEvent:
    """Return the event of a question."""
    return task_event(task, "task.input_required", question, n=f"asked-{question.question_id}")


def answered(task: Task, answer: Answer) -> AnyEvent:
    """Return the event of an answer: who waits for it goes on, else the next attempt has it."""
    n = f"answered-{answer.question_id}"
    if task.status is TaskStatus.INPUT_REQUIRED:
        return task_event(task, "task.resumed", answer, n=n)
    return task_event(task, "task.answered", answer, n=n)


def queued_data(task: Task) -> QueuedData:
    """Return what the first event of a task tells."""
    birth = task.birth
    return QueuedData(
        subagent=birth.subagent,
        parent=birth.parent,
        parent_task_id=birth.parent_task_id,
        priority=birth.options.priority,
    )
