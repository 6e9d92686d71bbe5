"""Log records that say to which attempt they belong."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from celery.utils.log import ColorFormatter

from hermes_async.adapters.logs import AttemptIds, fit
from hermes_async.core.present import Presence
from tests.support.values import make_task

TASK = make_task("chat", attempt=2)
IDS = f" task={TASK.id} attempt=2 trace={TASK.birth.trace_id}"


@contextmanager
def log(
    formatter: logging.Formatter | None, *, as_json: bool = False
) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes into a text."""
    logger, out = logging.Logger("agents"), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    fit(logger.handlers, as_json=as_json)
    fit(logger.handlers, as_json=as_json)  # as Celery does, where loggers share a handler
    yield logger, out


def test_a_record_made_inside_an_attempt_carries_its_ids() -> None:
    with log(ColorFormatter("[%(levelname)s] %(message)s", use_color=False)) as (logger, out):
        logger.info("before")
        with Presence(TASK):
            logger.info("within %s", "it")
        logger.info("after")
    assert out.getvalue() == f"[INFO] before\n[INFO] within it{IDS}\n[INFO] after\n"


def test_a_traceback_stays_below_the_line_with_the_ids() -> None:
    with log(None) as (logger, out), Presence(TASK):
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("failed")
    first, *rest = out.getvalue().splitlines()
    assert first == f"failed{IDS}"
    assert rest[-1] == "ValueError: no"


def test_a_json_line_is_one_object() -> None:
    with log(None, as_json=True) as (logger, out):
        with Presence(TASK):
            try:
                raise ValueError("no\nway")
            except ValueError:
                logger.exception("failed\n%s", "twice")
        logger.info("after")
    within, after = map(json.loads, out.getvalue().splitlines())
    assert within["message"] == "failed\ntwice"
    assert (within["level"], within["logger"]) == ("ERROR", "agents")
    assert (within["task_id"], within["session_id"], within["attempt"]) == (TASK.id, "chat", 2)
    assert (within["agent"], within["trace_id"]) == ("echo", TASK.birth.trace_id)
    assert within["error"].endswith("ValueError: no\nway")
    assert "task_id" not in after


def test_what_celery_tells_of_a_task_names_it_in_json() -> None:
    with log(None, as_json=True) as (logger, out):
        logger.info("Task done", extra={"data": {"id": TASK.id}})
    assert json.loads(out.getvalue())["task_id"] == TASK.id


def test_a_format_of_another_style_is_left_alone() -> None:
    with log(logging.Formatter("{message}!", style="{")) as (logger, out), Presence(TASK):
        logger.info("hello")
    assert out.getvalue() == "hello!\n"


def test_a_handler_of_somebody_elses_can_have_the_filter() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    with Presence(TASK):
        assert AttemptIds().filter(record)
    assert record.attempt_ids["task_id"] == TASK.id  # type: ignore[attr-defined]
