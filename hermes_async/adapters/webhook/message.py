"""What a webhook is told: type, timestamp and data, as Standard Webhooks has it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from hermes_async.domain.callback import Call
from hermes_async.domain.task import TaskResult

#: Bytes of a body. Beyond it the output is left out; who wants it asks for the task.
LONGEST: Final = 65_536


def body(call: Call, result: TaskResult) -> bytes:
    """Return the body, which is the same at every try."""
    whole = {
        "type": f"task.{result.status}",
        "timestamp": _iso(call.task.finished_at or 0.0),
        "data": {**_result(result), **_context(call), "truncated": False},
    }
    encoded = _encoded(whole)
    return encoded if len(encoded) <= LONGEST else _encoded({**whole, "data": _shortened(whole["data"])})


def _result(result: TaskResult) -> dict[str, Any]:
    """Return the result without a traceback, which is nobody's business outside."""
    return result.model_dump(mode="json", exclude={"error": {"traceback"}})


def _context(call: Call) -> dict[str, Any]:
    birth = call.task.birth
    return {
        "session_id": birth.session_id,
        "seq": call.callback.seq,
        "agent": call.task.agent,
        "subagent": birth.subagent,
        "parent": birth.parent,
        "parent_task_id": birth.parent_task_id,
        "created_at": call.task.created_at,
        "started_at": call.task.started_at,
        "finished_at": call.task.finished_at,
    }


def _shortened(data: Any) -> dict[str, Any]:
    short = {key: value for key, value in data.items() if key != "output"}
    return {**short, "truncated": True}


def _encoded(whole: Any) -> bytes:
    return json.dumps(whole, separators=(",", ":")).encode()


def _iso(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
