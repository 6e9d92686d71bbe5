"""What a client may ask for, checked; and how it is told that it may not have it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hermes_async.core.ids import checked_session_id
from hermes_async.domain.errors import (
    IdempotencyConflict,
    InvalidInput,
    ServiceError,
    TaskRejected,
    Unauthorized,
    UnknownAgent,
    UnknownTask,
)
from hermes_async.relay.line import TooMany

#: One answer for what is absent and for what is foreign: nobody learns which of the two it is.
ABSENT: Final = "there is no such session or task, or it is not yours"

_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (UnknownTask, "not_found"),
    (InvalidInput, "invalid"),
    (UnknownAgent, "invalid"),
    (Unauthorized, "unauthorized"),
    (IdempotencyConflict, "conflict"),
    (TaskRejected, "limit_exceeded"),
    (TooMany, "too_many"),
    (ServiceError, "unavailable"),
)


class Wish(BaseModel):
    """A session or a task, and the `seq` after which to begin."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    session: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    task: Annotated[str, Field(pattern=r"^[!-~]{1,100}$")] | None = None
    after: Annotated[int, Field(ge=0, le=2**53)] = 0


def parsed(said: object) -> Wish:
    """Return what a client asked for.

    Raises:
        InvalidInput: it cannot be understood.
    """
    try:
        wish = Wish.model_validate(said)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in problem["loc"])
        raise InvalidInput(f"{place or 'the command'}: {problem['msg']}") from None
    if (wish.session is None) == (wish.task is None):
        raise InvalidInput("name either a session or a task")
    if wish.session is not None:
        checked_session_id(wish.session)
    return wish


def refusal(exc: Exception) -> dict[str, Any]:
    """Return the answer to a command that failed; details of what is not the client's fault stay here."""
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), "internal")
    told = {
        "not_found": ABSENT,
        "unavailable": "the relay cannot reach its store at the moment; try again",
        "internal": "the relay failed; its log says why",
    }
    return {"ok": False, "error": {"code": code, "message": told.get(code, str(exc))}}
