"""Events and tasks in words for people: short, on one line, and without control characters."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.question import Question
from hermes_async.domain.task import Progress, Task
from hermes_async.domain.usage import NO_USAGE, Usage

#: Characters of a value that is told within a line.
LONGEST: Final = 500

#: Control characters, which could draw anything on a terminal; newline and tab are harmless.
_CONTROL: Final = [code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"]
#: What begins a line, or turns the order of the letters; and halves of characters, which cannot be printed.
_TURNING: Final = (*range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
_UNSHOWN: Final = dict.fromkeys((*_CONTROL, *_TURNING), "�")
#: The same in JSON, where control characters of ASCII are escaped anyhow, but for DEL.
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in _UNSHOWN if code >= 127}


def shown(value: Any) -> str:
    """Return a result as a person reads it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def harmless(text: str) -> str:
    """Return text that cannot play tricks on a terminal."""
    return text.replace("\r\n", "\n").translate(_UNSHOWN)


def as_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that means the same and plays no tricks on a terminal."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_ESCAPED)


def line(value: Any, longest: int = LONGEST) -> str:
    """Return a value on one line of bearable length."""
    text = harmless(" ".join(shown(value).split()))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def news(event: AnyEvent) -> str:
    """Return what an event says beyond its type."""
    tell = _TELLERS.get(event.type)
    return line(tell(event.data, event)) if tell else ""


def progress(value: Progress | None) -> str:
    """Return how far a task is."""
    if value is None:
        return ""
    percent = "" if value.progress_percent is None else f"{value.progress_percent:.0f}%"
    return line(f"{percent} {value.message}")


def usage(value: Usage | None) -> str:
    """Return what a task has consumed."""
    if value is None:
        return ""
    counts = [f"{value.requests:,} requests", f"{value.tool_calls:,} tool calls"]
    counts.append(f"{value.input_tokens:,} tokens read and {value.output_tokens:,} written")
    return ", ".join(counts if value.cost_usd is None else [*counts, f"${value.cost_usd:.4f}"])


def budget(record: Task) -> str:
    """Return how much of its limits a task has used, together with those below it."""
    own = next((one for one in record.birth.budgets if one.task_id == record.id), None)
    return ", ".join(own.told(record.tree_usage or NO_USAGE)) if own else ""


def question(asked: Question | None, task_id: str) -> str:
    """Return what a task asks, and how to answer."""
    if asked is None:
        return ""
    problem = f" (the last answer: {asked.problem})" if asked.problem else ""
    return f"{line(asked.question + problem, 300)} | hermes-async task answer {task_id} VALUE"


def seconds(value: float) -> str:
    """Return a length of time, as exact as it matters."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def ago(moment: float) -> str:
    """Return how long ago a moment was."""
    return f"{seconds(max(0.0, time.time() - moment))} ago"


def ending(task: Task) -> str:
    """Return in one sentence how a task ended, or that it has not."""
    if not task.status.is_terminal:
        return f"task {task.id} of {task.agent} has not ended: it is {task.status}"
    why = f" ({task.reason})" if task.reason else ""
    error = f": {task.error.type}: {task.error.message}" if task.error else ""
    return line(f"task {task.id} of {task.agent} {task.status}{why}{error}", 2_000)


def _error(data: Any) -> str:
    return f"{data.error.type}: {data.error.message}" if data.error else ""


def _queued(data: Any, _: AnyEvent) -> str:
    return f"{data.subagent} for {data.parent}" if data.parent else str(data.subagent)


def _answer(data: Any, _: AnyEvent) -> str:
    said = "" if data.answer is None else shown(data.answer)
    return said if data.by == "answer" else f"{said} ({data.by})"


_TELLERS: Final[dict[str, Callable[[Any, AnyEvent], str]]] = {
    "task.queued": _queued,
    "task.started": lambda data, event: f"attempt {event.attempt} on {data.worker}",
    "task.progress": lambda data, _: progress(data),
    "task.partial": lambda data, _: f"{data.name}: {shown(data.value)}",
    "task.message": lambda data, _: data.text,
    "task.message_applied": lambda data, _: f"#{data.message}",
    "task.input_required": lambda data, event: question(data, event.task_id or ""),
    "task.resumed": _answer,
    "task.answered": _answer,
    "task.cancel_requested": lambda data, _: "by force" if data.force else "",
    "task.retrying": lambda data, _: f"{_error(data)}; again in {seconds(data.delay)}",
    "task.attempt_lost": lambda data, _: data.cause.replace("_", " "),
    "task.completed": lambda data, _: "" if data.output is None else shown(data.output),
    "task.failed": lambda data, _: f"{data.reason}: {_error(data)}",
    "task.rejected": lambda data, _: f"{data.reason}: {_error(data)}",
    "session.message": lambda data, _: data.text,
    "session.restored": lambda data, _: f"the server has lost events up to #{data.through}",
    "session.unreadable": lambda data, _: f"this version cannot read a {data.type}",
    "callback.succeeded": lambda data, _: data.name,
    "callback.failed": lambda data, _: f"{data.name}: {_error(data)}",
    "callback.dead": lambda data, _: f"{data.name}: {_error(data)}",
}
