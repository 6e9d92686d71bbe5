"""The record of a task: its JSON, and what is shown of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.task import TERMINAL, Birth, Lane, Progress, Task, TaskResult, TaskStatus
from hermes_async.domain.usage import Usage
from tests.support.values import make_task


def full() -> Task:
    return make_task(
        options={"timeout": None, "retry_limit": 1},
        status=TaskStatus.FAILED,
        attempt=2,
        failures=2,
        worker="w1",
        progress=Progress(progress_percent=50, message="half"),
        partials={"a": {"b": [1, None]}},
        error=ErrorInfo(type="E", message="m"),
        reason=Reason.TIMEOUT,
        usage=Usage(requests=1),
        created_at=1.5,
        started_at=2.0,
        finished_at=3.25,
    )


def test_a_task_survives_json() -> None:
    task = full()
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert Task.model_validate_json(task.model_dump_json(exclude_defaults=True)) == task


def test_a_task_is_frozen() -> None:
    with pytest.raises(ValidationError):
        full().status = TaskStatus.RUNNING  # type: ignore[misc]


def test_people_see_birth_and_state_side_by_side() -> None:
    task = full()
    shown = task.as_json()
    assert (shown["status"], shown["reason"], shown["subagent"]) == ("failed", "timeout", "echo")
    assert shown["trace_id"] == task.birth.traceparent.split("-")[1]
    assert not {"options", "traceparent", "birth"} & shown.keys()


def test_a_result_tells_how_it_ended() -> None:
    task = full()
    result = TaskResult.of(task)
    assert result.model_dump() == {
        "task_id": task.id,
        "status": TaskStatus.FAILED,
        "output": None,
        "error": {"type": "E", "message": "m", "traceback": ""},
        "reason": Reason.TIMEOUT,
        "attempt": 2,
        "usage": Usage(requests=1).model_dump(),
        "trace_id": task.birth.trace_id,
    }


def test_four_statuses_are_final() -> None:
    assert {status for status in TaskStatus if status.is_terminal} == TERMINAL
    assert len(TERMINAL) == 4


@pytest.mark.parametrize("percent", [-1, 101, "much"])
def test_progress_is_a_percentage(percent: object) -> None:
    with pytest.raises(ValidationError):
        Progress(progress_percent=percent)  # type: ignore[arg-type]


def test_words_on_the_wire_are_lower_case() -> None:
    for enum in (TaskStatus, Lane, Reason):
        assert all(str(member) == member.value == member.value.lower() for member in enum)


def test_a_record_has_a_webhook_but_none_of_its_secrets() -> None:
    webhook = {"url": "https://example.com/hook?key=hush", "secret": "hush" * 6}
    birth = make_task(options={"webhook": webhook, "timeout": 7.0}).birth
    assert birth.options.webhook is not None
    assert birth.options.webhook.url == "https://example.com/hook"
    assert birth.options.timeout == 7
    assert "hush" not in birth.model_dump_json() + repr(birth)
    assert Birth.model_validate_json(birth.model_dump_json()) == birth
