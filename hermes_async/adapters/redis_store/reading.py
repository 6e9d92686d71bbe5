"""Reading records: one that another version wrote, or that is damaged, is told apart from those beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TypeVar

from pydantic import ValidationError

from hermes_async.adapters.redis_store.codec import LONGEST_TOLD, decode_task, number
from hermes_async.core.tracing import made_up
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.errors import StoreDamaged, UnreadableTask
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.misfit import misfit_of
from hermes_async.domain.task import Address, Birth, Lane, Task, TaskStatus
from hermes_async.domain.trusted import trusted

logger = logging.getLogger("hermes.store")

#: Tasks of which was said that their record cannot be read.
_TOLD: set[str] = set()
_MOST_TOLD = 100

E = TypeVar("E", bound=StrEnum)


def read_task(task_id: str, fields: Mapping[str, str]) -> Task:
    """Return the record that a hash holds.

    Raises:
        UnreadableTask: this version cannot read it.
    """
    try:
        return decode_task(fields)
    except Exception as exc:  # another version wrote it, or it is damaged
        message = (
            f"this version of hermes_async cannot read the record of task {task_id} ({_why(exc)}): "
            "upgrade it if a newer one has written the record, else that is damaged"
        )
        raise UnreadableTask(message, _known(task_id, fields)) from exc


def tell_once(task_id: str, exc: StoreDamaged) -> None:
    """Say once of each task that it is left out."""
    if task_id not in _TOLD and len(_TOLD) < _MOST_TOLD:
        _TOLD.add(task_id)
        logger.warning("task %s is left out: %s", task_id, exc)


def _why(exc: Exception) -> str:
    """Return in a line what is wrong; values of the record are not shown."""
    if isinstance(exc, ValidationError):
        said = misfit_of(exc)
    elif isinstance(exc, KeyError):
        said = f"it has no {exc}"
    else:
        said = str(exc)
    return " ".join(said.split())[:LONGEST_TOLD]


def _known(task_id: str, fields: Mapping[str, str]) -> Task:
    """Return what the fields say that scripts compare; a status that is unknown is no end."""
    agent = fields.get("agent", "")
    birth = {
        "id": task_id,
        "session_id": fields.get("session", ""),
        "subagent": fields.get("subagent", agent),
        "input": {},
        "options": trusted(SubagentSpec, {"id": agent, "agent": agent}),
        "to": Address(lane=_one_of(Lane, fields.get("lane")) or Lane.ASYNC),
        "traceparent": made_up(task_id, fields.get("trace")).traceparent,
    }
    state = {
        "birth": trusted(Birth, birth),
        "agent": agent,
        "status": _one_of(TaskStatus, fields.get("status")) or TaskStatus.RUNNING,
        "attempt": number(fields.get("attempt")),
        "failures": number(fields.get("failures")),
        "losses": number(fields.get("losses")),
        "worker": fields.get("worker"),
        "cancel_requested": fields.get("cancel_requested") == "1",
        "error": _error(fields.get("error")),
        "reason": _one_of(Reason, fields.get("reason")),
        "created_at": number(fields.get("created_at")) / 1000,
    }
    return trusted(Task, state)


def _error(text: str | None) -> ErrorInfo | None:
    with suppress(ValueError):
        return ErrorInfo.model_validate_json(text or "")
    return None


def _one_of(cls: type[E], text: str | None) -> E | None:
    return cls(text) if text in set(cls) else None
