"""What a client may ask for, checked; and how it is told that it may not have it."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from hermes_async.core.ids import checked_session_id
from hermes_async.domain.errors import (
    ConfigError,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    NotTaken,
    ServiceError,
    TaskRejected,
    Unauthorized,
    UnknownAgent,
    UnknownTask,
    UnreadableTask,
)
from hermes_async.domain.misfit import misfit_of
from hermes_async.relay.line import TooMany

#: One answer for what is absent and for what is foreign: nobody learns which of the two it is.
ABSENT: Final = "there is no such session or task, or it is not yours"

_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (UnknownTask, "not_found"),
    (InvalidInput, "invalid"),
    (UnknownAgent, "invalid"),
    (ConfigError, "invalid"),
    (Unauthorized, "unauthorized"),
    (Forbidden, "forbidden"),
    (NotTaken, "not_taken"),
    (IdempotencyConflict, "conflict"),
    (UnreadableTask, "unreadable"),
    (TaskRejected, "limit_exceeded"),
    (TooMany, "too_many"),
    (ServiceError, "unavailable"),
)


SessionId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(checked_session_id)]
TaskId = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=60_000)]
Seq = Annotated[int, Field(ge=0, le=2**53)]


class Said(BaseModel):
    """What a client said: nothing is guessed or ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Wish(Said):
    """A session or a task, and the `seq` after which to begin."""

    session: SessionId | None = None
    task: TaskId | None = None
    after: Seq = 0

    @model_validator(mode="after")
    def _names_one(self) -> Wish:
        if (self.session is None) == (self.task is None):
            raise ValueError("name either a session or a task")
        return self


class Dispatch(Said):
    """Start a task: see `Session.submit`."""

    session: SessionId
    subagent: Name
    input: Text | dict[str, JsonValue]
    parent: Name | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    idempotency_key: Name | None = None


class Cancel(Said):
    """Ask a task to stop: see `TaskHandle.cancel`."""

    task: TaskId
    force: bool = False
    cascade: bool = True


class Send(Said):
    """Say something to a running task: see `TaskHandle.send`."""

    task: TaskId
    text: Text
    data: JsonValue = None


class Answer(Said):
    """Answer what a task asks: see `TaskHandle.answer`."""

    task: TaskId
    value: JsonValue = None
    question: Name | None = None


class Message(Said):
    """Say something in a session: see `Session.send_message`."""

    session: SessionId
    text: Text
    data: JsonValue = None


class Inbox(Said):
    """Look at what the parent has not acknowledged yet."""

    session: SessionId
    after: Seq = 0
    limit: Annotated[int, Field(ge=1, le=100)] = 100


class Ack(Said):
    """Take deliveries out of the inbox."""

    session: SessionId
    seqs: Annotated[list[Seq], Field(max_length=1_000)]


S = TypeVar("S", bound=Said)


def parsed(kind: type[S], said: object) -> S:
    """Return what a client asked for.

    Raises:
        InvalidInput: it cannot be understood.
    """
    if not isinstance(said, dict):
        raise InvalidInput(f"a command takes one object: {', '.join(kind.model_fields)}, each by its name")
    try:
        return kind.model_validate(said)
    except ValidationError as exc:
        raise InvalidInput(misfit_of(exc)) from None


def refusal(exc: Exception) -> dict[str, Any]:
    """Return the answer to a command that failed; details of what is not the client's fault stay here."""
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), "internal")
    told = {
        "not_found": ABSENT,
        "unavailable": "the relay cannot reach its store at the moment; try again",
        "internal": "the relay failed; its log says why",
    }
    return {"ok": False, "error": {"code": code, "message": told.get(code, str(exc))}}
