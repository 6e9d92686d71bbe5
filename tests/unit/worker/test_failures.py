"""The line that a worker logs of an attempt that failed."""

from __future__ import annotations

import json
import logging
import traceback

import pytest

from hermes_async.core.runner import raised
from hermes_async.domain.events import AnyEvent, FailedData, RetryingData, task_event
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.task import TaskStatus
from hermes_async.worker.failures import log_failure, where
from tests.support.values import make_task

TASK = make_task(status=TaskStatus.RUNNING, attempt=2)
BOOM = ErrorInfo(type="ValueError", message="no\n  ❄")


def careless() -> None:
    json.loads("{")


def error_of_careless() -> ErrorInfo:
    try:
        careless()
    except ValueError as error:
        return raised(error).error
    raise AssertionError


def logged(caplog: pytest.LogCaptureFixture, event: AnyEvent) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "hermes.worker"):
        log_failure(event)
    (record,) = caplog.records
    assert record.data == {"id": TASK.id}  # type: ignore[attr-defined]  # for a log in JSON
    return record.getMessage()


def test_it_says_who_failed_and_what_follows(caplog: pytest.LogCaptureFixture) -> None:
    said = f"{TASK.agent}: attempt 2 of {TASK.id} failed: ValueError: no ❄; "
    failed = task_event(TASK, "task.failed", FailedData(reason=Reason.ERROR, error=BOOM))
    assert logged(caplog, failed) == f"{said}it is not tried again"
    again = RetryingData(error=BOOM, reason=Reason.ERROR, delay=1.25, failures=1)
    assert logged(caplog, task_event(TASK, "task.retrying", again)) == f"{said}it is tried again in 1.2 s"
    moved = again.model_copy(update={"agent": "other"})
    assert logged(caplog, task_event(TASK, "task.retrying", moved)) == f"{said}other goes on with it"


def test_it_says_where_in_the_agents_own_code(caplog: pytest.LogCaptureFixture) -> None:
    error = error_of_careless()
    assert "json/decoder.py" in error.traceback
    line = careless.__code__.co_firstlineno + 1
    assert where(error) == f"{__file__}:{line} in careless"
    failed = task_event(TASK, "task.failed", FailedData(reason=Reason.ERROR, error=error))
    assert f" at {where(error)}; it is not" in logged(caplog, failed)


def test_without_code_of_its_own_it_says_where_at_all() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        foreign = "".join(traceback.format_list([last]))
    assert where(ErrorInfo(type="E", traceback=foreign)) == f"{last.filename}:{last.lineno} in {last.name}"
    assert where(ErrorInfo(type="E")) == ""
