"""What a model is told of a task: few words, plain JSON, and nothing longer than it may be."""

from __future__ import annotations

import json
from typing import Any

from pydantic import JsonValue

from hermes_async.domain.question import Question
from hermes_async.domain.task import Progress, Task

#: Characters of a sentence that comes from elsewhere: an error, the input of a task in a list.
SENTENCE = 500
LINE = 100


class Reply(dict[str, Any]):
    """What a tool answers: plain JSON values; as text it is JSON, which frameworks hand to their models."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)


def text_of(value: JsonValue) -> str:
    """Return text as it is, and anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def cut(value: JsonValue, longest: int) -> JsonValue:
    """Return a value as it is, or the beginning of its text if that has more characters than `longest`."""
    text = text_of(value)
    return value if len(text) <= longest else f"{text[: max(0, longest - 1)]}…"


def report(task: Task, longest: int, offset: int = 0) -> Reply:
    """Return where a task stands.

    Args:
        task: the record.
        longest: characters of the output, or of all partial results together.
        offset: the character at which the output begins.
    """
    reply = brief(task)
    if task.question is not None:
        reply["question"] = asked(task.question, longest)
    if task.partials and not task.status.is_terminal:
        share = longest // len(task.partials)
        reply["partials"] = {name: cut(value, share) for name, value in task.partials.items()}
    if task.output is not None:
        reply |= piece(task.output, longest, offset)
    if task.error is not None:
        reply["error"] = cut(f"{task.error.type}: {task.error.message}", SENTENCE)
    return reply


def brief(task: Task) -> Reply:
    """Return which task it is and how far."""
    reply = Reply(task_id=task.id, subagent=task.birth.subagent, status=task.status.value)
    if task.reason is not None:
        reply["reason"] = task.reason.value
    if task.status.is_terminal:
        return reply
    if task.cancel_requested:
        reply["cancelling"] = True
    if task.attempt > 1:
        reply["attempt"] = task.attempt
    if task.progress is not None:
        reply["progress"] = _progress(task.progress)
    return reply


def entry(task: Task) -> Reply:
    """Return a task as a line of a list."""
    given = task.birth.input
    only = next(iter(given.values())) if len(given) == 1 else given
    return Reply(brief(task), input=cut(" ".join(text_of(only).split()), LINE))


def asked(question: Question, longest: int) -> dict[str, JsonValue]:
    """Return what a task asks; what is unset is left out."""
    told: dict[str, JsonValue] = {
        "question_id": question.question_id,
        "question": cut(question.question, longest),
        "answer_schema": cut(question.answer_schema, longest),
        "problem": question.problem and cut(question.problem, SENTENCE),
    }
    return {name: value for name, value in told.items() if value is not None}


def piece(output: JsonValue, longest: int, offset: int = 0) -> dict[str, JsonValue]:
    """Return an output, or a piece of its text with what is needed to ask for the next."""
    text = text_of(output)
    if not offset and len(text) <= longest:
        return {"output": output}
    end = offset + longest
    told: dict[str, JsonValue] = {"output": text[offset:end], "output_characters": len(text)}
    return told if end >= len(text) else told | {"next_offset": end}


def _progress(progress: Progress) -> str:
    percent = "" if progress.progress_percent is None else f"{progress.progress_percent:.0f} %"
    return " ".join(filter(None, (percent, progress.message)))
