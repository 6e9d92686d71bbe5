"""What a running task asks of its parent, and what it is told."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from hermes_async.domain.json_schema import misfit


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Question(_Value):
    """What a task needs to know before it can go on."""

    #: The same in every attempt that asks the same, so that one answer serves them all.
    question_id: str
    question: str
    #: JSON Schema of the answer; None: any JSON value.
    answer_schema: dict[str, JsonValue] | None = None
    #: When it is no longer waited for, in Unix seconds by Redis' clock; None: never.
    expires_at: float | None = None
    #: Why the answer before this one could not be used.
    problem: str | None = None

    def meant(self, text: str) -> JsonValue:
        """Return what a text means as the answer: itself, or what it says as JSON where text does not fit."""
        if misfit(self.answer_schema, text) is None:
            return text
        try:
            said: JsonValue = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return said


class Answer(_Value):
    """What a task goes on with.

    `by` says what ended the question: an `answer`, its own `default`, its `timeout`, or that the agent has
    stopped asking (`withdrawn`).
    """

    question_id: str
    answer: JsonValue = None
    by: Literal["answer", "default", "timeout", "withdrawn"] = "answer"

    @property
    def stands(self) -> bool:
        """Whether it answers the same question of later attempts, too."""
        return self.by in ("answer", "default")
