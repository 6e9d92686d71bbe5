"""Records and events as Redis keeps them: flat where scripts compare, JSON where only we read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache, reduce
from operator import getitem
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from hermes_async.core.ports import Parcel
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.budget import Budget
from hermes_async.domain.callback import Callback, CallbackKind, Try, name_of, wanted
from hermes_async.domain.events import CLASSES, AnyEvent, SessionUnreadable, unreadable
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Address, Birth, Lane, Progress, Task, TaskStatus
from hermes_async.domain.trusted import trusted
from hermes_async.domain.usage import Usage

logger = logging.getLogger("hermes.store")

M = TypeVar("M", bound=BaseModel)

#: The fields of a log's entry, in their order.
_ENTRY = ("id", "type", "time", "task", "agent", "attempt", "trace", "data")
_LONGEST_NUMBER = 20
#: Types of events of which was said that one cannot be read.
_WARNED: set[str] = set()
_MOST_WARNINGS = 100
#: Characters of what is told of a row or an event that cannot be read.
LONGEST_TOLD = 500
_PARTIAL, _ANSWER = "partial:", "answer:"
#: Of a task that has shown and was told nothing, as most: one for all.
_NONE: Mapping[str, Any] = {}
#: What every birth says.
_BORN_WITH = {name for name, field in Birth.model_fields.items() if field.is_required()}
#: What a store counts, in the order of `Usage.counts`.
_COUNTS = ("requests", "tool_calls", "input_tokens", "output_tokens", "cost")


def encode_changes(event: AnyEvent, changes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the hash fields that an event sets and their values, in turn."""
    is_first = event.type == "task.completed" and event.attempt == 1  # so there is nothing to clear
    for name, value in changes.items():
        if name in ("status", "attempt", "question"):  # the script's own
            continue
        if not (is_first and value is None):
            yield name
            yield json.dumps(value, ensure_ascii=False) if name == "output" else _encode(value)
    if event.type == "task.partial":
        yield _PARTIAL + event.data.name
        yield json.dumps(event.data.value, ensure_ascii=False)


def encode_move(moved: Task | None, parcel: Parcel | None) -> Iterator[str | int]:
    """Yield the hash fields, and their values in turn, of a task that goes to another agent or lane."""
    if moved is None:
        return
    yield from ("lane", moved.lane, "agent_slots", moved.address.concurrency_limit or "")
    if parcel is not None:
        yield from ("parcel_key", parcel.key, "parcel", parcel.body)


def encode_wants(birth: Birth) -> str:
    """Return the kinds of callbacks that a task asks for, as the script reads them; often none."""
    kinds = wanted(birth.options)
    return ",".join(("ordered", *kinds) if birth.ordered else kinds) if kinds else ""


def _encode(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return str(int(value)) if isinstance(value, bool) else str(value)


def decode_task(fields: Mapping[str, str]) -> Task:
    """Return the record that a hash holds."""
    record = {
        "birth": decode_birth(fields["birth"]),
        "agent": fields["agent"],
        "moved_to": Lane(fields["moved_to"]) if "moved_to" in fields else None,
        "status": TaskStatus(fields["status"]),
        "attempt": int(fields["attempt"]),
        "failures": int(fields.get("failures", 0)),
        "losses": int(fields.get("losses", 0)),
        "worker": fields.get("worker"),
        "claim": fields.get("token", ""),
        "cancel_requested": fields.get("cancel_requested") == "1",
        "progress": _model(Progress, fields.get("progress")),
        "partials": {
            n.removeprefix(_PARTIAL): json.loads(v) for n, v in fields.items() if n.startswith(_PARTIAL)
        }
        or _NONE,
        "question": _model(Question, fields.get("question")),
        "answers": {
            n.removeprefix(_ANSWER): Answer.model_validate_json(v)
            for n, v in fields.items()
            if n.startswith(_ANSWER)
        }
        or _NONE,
        "output": json.loads(fields["output"]) if "output" in fields else None,
        "error": _model(ErrorInfo, fields.get("error")),
        "reason": Reason(fields["reason"]) if fields.get("reason") else None,
        "usage": _usage("used:", fields),
        "tree_usage": _usage("tree:", fields),
        "created_at": _seconds(fields["created_at"]),
        "began_at": _seconds(fields["began_at"]) if "began_at" in fields else None,
        "queued_at": _seconds(fields["queued_at"]) if "queued_at" in fields else None,
        "started_at": _seconds(fields["started_at"]) if "started_at" in fields else None,
        "finished_at": _seconds(fields["finished_at"]) if "finished_at" in fields else None,
    }
    return trusted(Task, record)


def encode_birth(birth: Birth) -> str:
    """Return a birth as two lines: its options, which most tasks of a kind share, and the rest."""
    options = birth.options.model_dump_json(exclude_defaults=True)
    return f"{options}\n{birth.model_dump_json(exclude_defaults=True, exclude={'options'})}"


def decode_birth(text: str) -> Birth:
    """Return the birth that `encode_birth` has written."""
    options, _, rest = text.partition("\n")
    values = {"input": {}, **from_json(rest), "options": _options(options)}
    if missing := _BORN_WITH - values.keys():
        raise KeyError(min(missing))
    for name in ("to", "fallback"):
        if name in values:
            values[name] = Address.model_validate(values[name])
    if "budgets" in values:
        values["budgets"] = tuple(_lenient(Budget, to_json(each)) for each in values["budgets"])
    return trusted(Birth, values)


@lru_cache(maxsize=1_000)
def _options(text: str) -> SubagentSpec:
    return _lenient(SubagentSpec, text)


def _lenient(cls: type[M], text: str | bytes) -> M:
    """Return a recorded model without the keys, at whatever depth, that only a newer version knows."""
    try:
        return cls.model_validate_json(text)
    except ValidationError as exc:
        unknown = [each["loc"] for each in exc.errors() if each["type"] == "extra_forbidden"]
        if not unknown:
            raise
    value = from_json(text)
    for *path, key in unknown:
        del reduce(getitem, path, value)[key]
    return cls.model_validate_json(to_json(value))


def decode_event(session_id: str, entry_id: str, fields: Mapping[str, str]) -> AnyEvent:
    """Return the event that a stream entry holds; its `seq` is the entry's id.

    One that cannot be read is replaced, so that the numbers have no hole and its readers go on.
    """
    try:
        return _readable(session_id, entry_id, fields)
    except Exception as exc:  # another version wrote it, or it is damaged
        return _replaced(session_id, entry_id, fields, exc)


def _readable(session_id: str, entry_id: str, fields: Mapping[str, str]) -> AnyEvent:
    cls = CLASSES[fields["type"]]
    data = cls.model_fields["data"].annotation
    assert data is not None
    envelope = {
        "seq": int(entry_id.partition("-")[0]),
        "id": fields["id"],
        "type": fields["type"],
        "time": _seconds(fields["time"]),
        "session_id": session_id,
        "task_id": fields["task"] or None,
        "agent": fields["agent"] or None,
        "attempt": int(fields["attempt"]),
        "trace_id": fields["trace"] or None,
        "data": data.model_validate_json(fields["data"]),
    }
    return trusted(cls, envelope)


def _replaced(session_id: str, entry_id: str, fields: Mapping[str, str], exc: Exception) -> AnyEvent:
    said = unreadable(fields.get("type"))
    _warn(said["data"].type, f"event {entry_id} of session {session_id} cannot be read: {exc!r}")
    envelope = {
        "seq": int(entry_id.partition("-")[0]),
        "id": fields.get("id") or f"{session_id}:{entry_id}",
        "time": number(fields.get("time")) / 1000,
        "session_id": session_id,
        "task_id": fields.get("task") or None,
        "agent": fields.get("agent") or None,
        "attempt": number(fields.get("attempt")),
        "trace_id": fields.get("trace") or None,
    }
    return trusted(SessionUnreadable, envelope | said)


def number(text: str | None) -> int:
    """Return a number that may be damaged, and then is 0."""
    return int(text) if text and text.isdecimal() and len(text) < _LONGEST_NUMBER else 0


def _warn(type_: str, problem: str) -> None:
    """Say once of each type that something of it cannot be read."""
    if type_ not in _WARNED and len(_WARNED) < _MOST_WARNINGS:
        _WARNED.add(type_)
        logger.warning("%r: %s", type_, problem[:LONGEST_TOLD])


def decode_nudge(session_id: str, text: str) -> AnyEvent | None:
    """Return the event that a nudge has brought: its seq, then the values of its entry, one a line.

    Raises:
        Exception: it cannot be read. What the log says there, and not a nudge, is what its readers are told.
    """
    seq, *values = text.split("\n", len(_ENTRY))
    return _readable(session_id, seq, dict(zip(_ENTRY, values, strict=True))) if values else None


def decode_callback(callback_id: str, task: Task, fields: Mapping[str, str]) -> Callback:
    """Return the row of a task's callback; the record says what it does not."""
    kind = CallbackKind(callback_id.split(":")[1])
    tries = (line.split(" ", 1) for line in fields.get("log", "").split("\n") if line)
    return Callback.model_construct(
        id=callback_id,
        kind=kind,
        name=name_of(task.birth.options, kind),
        session_id=task.session_id,
        task_id=task.id,
        seq=int(fields["seq"]),
        failures=int(fields.get("failures", 0)),
        log=tuple(Try(at=_seconds(at), error=_model(ErrorInfo, error)) for at, error in tries),
        dead="dead" in fields,
        due_at=_seconds(fields["due"]) if "due" in fields else None,
    )


def decode_damaged(callback_id: str, record: Mapping[str, str], fields: Mapping[str, str]) -> Callback:
    """Return what can be said of a row that cannot be read, or the record of whose task cannot."""
    task_id, kind = callback_id.split(":")[:2]
    return Callback.model_construct(
        id=callback_id,
        kind=CallbackKind(kind),
        name=kind,
        session_id=record.get("session", ""),
        task_id=task_id,
        seq=number(fields.get("seq")),
        failures=number(fields.get("failures")),
        dead="dead" in fields,
    )


def _model(cls: type[BaseModel], text: str | None) -> Any:
    return cls.model_validate_json(text) if text else None


def _usage(kind: str, fields: Mapping[str, str]) -> Usage | None:
    """Return what was counted; the first of the counts is there if any is."""
    if kind + _COUNTS[0] not in fields:
        return None
    return Usage.of(tuple(int(fields.get(kind + name, 0)) for name in _COUNTS))


def _seconds(milliseconds: str) -> float:
    return int(milliseconds) / 1000
