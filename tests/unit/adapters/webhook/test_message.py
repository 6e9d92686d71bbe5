"""The body of a post."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hermes_async.adapters.webhook.message import LONGEST, body
from hermes_async.domain.callback import Call
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.task import TaskResult, TaskStatus
from tests.unit.adapters.webhook.conftest import make_call


def told(call: Call) -> dict[str, Any]:
    whole = body(call, TaskResult.of(call.task))
    assert whole == body(call, TaskResult.of(call.task))
    return dict(json.loads(whole))


def test_what_is_told_of_a_task_that_completed() -> None:
    call = make_call(output={"ü": [1, "❄"]}, created_at=1.0, started_at=2.0)
    assert told(call) == {
        "type": "task.completed",
        "timestamp": "2023-11-14T22:13:20.500Z",
        "data": {
            "task_id": call.task.id,
            "status": "completed",
            "output": {"ü": [1, "❄"]},
            "error": None,
            "reason": None,
            "attempt": 1,
            "usage": None,
            "trace_id": call.task.birth.trace_id,
            "session_id": "chat",
            "seq": 3,
            "agent": "echo",
            "subagent": "echo",
            "parent": "boss",
            "parent_task_id": None,
            "created_at": 1.0,
            "started_at": 2.0,
            "finished_at": 1_700_000_000.5,
            "truncated": False,
        },
    }


def test_a_failure_tells_why_but_not_where_in_the_code() -> None:
    error = ErrorInfo(type="ValueError", message="no", traceback="File /srv/private.py")
    said = told(make_call(status=TaskStatus.FAILED, output=None, error=error, reason=Reason.ERROR))
    assert said["type"] == "task.failed"
    assert said["data"]["error"] == {"type": "ValueError", "message": "no"}


@pytest.mark.parametrize("character", ["x", "❄", '"'])
def test_an_output_that_is_too_long_is_left_out(character: str) -> None:
    said = told(make_call(output=character * LONGEST))
    assert said["data"]["truncated"] is True
    assert "output" not in said["data"]
    assert said["data"]["status"] == "completed"


def test_up_to_the_limit_it_is_all_there() -> None:
    room = LONGEST - len(body(make_call(output=""), TaskResult.of(make_call(output="").task)))
    for over in (0, 1):
        call = make_call(output="x" * (room + over))
        whole = body(call, TaskResult.of(call.task))
        assert ("output" in json.loads(whole)["data"]) == (not over)
        assert len(whole) == LONGEST or over
