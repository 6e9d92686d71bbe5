"""The line that a worker logs of an attempt that failed: what was raised, where, and what follows."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from hermes_async.core.importing import is_own
from hermes_async.domain.failure import ErrorInfo

logger = logging.getLogger("hermes.worker")

#: A place in a traceback.
_FRAME: Final = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)')
#: Characters of an error's message in the log.
_LONGEST: Final = 500


def log_failure(event: Any) -> None:
    """Log a `task.retrying` or `task.failed`."""
    error, place = event.data.error, where(event.data.error)
    logger.warning(
        "%s: attempt %d of %s failed: %s%s; %s",
        *(event.agent, event.attempt, event.task_id, _told(error)),
        *(f" at {place}" if place else "", _next(event)),
        extra={"data": {"id": event.task_id}},
    )


def where(error: ErrorInfo) -> str:
    """Return the last place in an agent's own code, else in any; empty: it is not known."""
    frames = list(_FRAME.finditer(error.traceback))
    own = [frame for frame in frames if is_own(frame["file"])]
    return "{file}:{line} in {function}".format_map((own or frames)[-1].groupdict()) if frames else ""


def _told(error: ErrorInfo) -> str:
    text = " ".join(f"{error.type}: {error.message}".split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _next(event: Any) -> str:
    if event.type == "task.failed":
        return "it is not tried again"
    if event.data.agent is not None:
        return f"{event.data.agent} goes on with it"
    return f"it is tried again in {event.data.delay:.1f} s"
