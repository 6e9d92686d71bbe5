"""Log records that say which attempt they belong to, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from hermes_async.core.present import present
from hermes_async.domain.task import Task

#: As in Celery's log, of which `up` shows the warnings.
FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"


class AttemptIds(logging.Filter):
    """Notes on each record in which attempt it was made: `record.attempt_ids`, and `record.ids` as text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Note it, and let every record pass."""
        task = present()
        ids = ids_of(task) if task is not None else _told_by_celery(record)
        record.attempt_ids = ids
        record.ids = "".join(f" {name}={ids[key]}" for name, key in _SHOWN) if task is not None else ""
        return True


#: What the text of a line tells, and under which key it is known.
_SHOWN: Final = (("task", "task_id"), ("attempt", "attempt"), ("trace", "trace_id"))


def ids_of(task: Task) -> dict[str, Any]:
    """Return what a log tells of an attempt."""
    return {
        "task_id": task.id,
        "session_id": task.session_id,
        "agent": task.agent,
        "attempt": task.attempt,
        "trace_id": task.birth.trace_id,
    }


def _told_by_celery(record: logging.LogRecord) -> dict[str, Any]:
    """Return the task of which a line of Celery's own tells; the text of such a line names it anyway."""
    data = getattr(record, "data", None)
    id_ = data.get("id") if isinstance(data, dict) else None
    return {} if id_ is None else {"task_id": id_}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.processName,
            **getattr(record, "attempt_ids", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


def fit(handlers: Iterable[logging.Handler], *, as_json: bool) -> None:
    """Let handlers tell the ids, whatever their format was; a traceback stays below them."""
    for handler in handlers:
        if not any(isinstance(each, AttemptIds) for each in handler.filters):
            handler.addFilter(AttemptIds())
            handler.setFormatter(JsonLines() if as_json else _with_ids(handler.formatter))


def _with_ids(formatter: logging.Formatter | None) -> logging.Formatter:
    """Return a formatter as it was, with the ids at the end of the message."""
    if formatter is None:
        return logging.Formatter("%(message)s%(ids)s")
    style = formatter._style
    if "%(message)s" in style._fmt:  # else it is written in another style, and does without
        style._fmt = formatter._fmt = style._fmt.replace("%(message)s", "%(message)s%(ids)s")
    return formatter


def set_up(level: int, *, as_json: bool, form: str = FORMAT) -> None:
    """Set up the log of a process of ours that is no Celery worker."""
    logging.basicConfig(format=form, level=level, force=True)
    fit(logging.getLogger().handlers, as_json=as_json)


def told(as_json: bool, logger: str, text: str) -> str:
    """Return a line that a process prints of itself, in the format of its log."""
    if not as_json:
        return text
    record = logging.LogRecord(logger, logging.INFO, "", 0, text, (), None)
    return JsonLines().format(record)
