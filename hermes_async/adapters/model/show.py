"""What others see of a run: the text as it comes, and the tools that are called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    ToolCallPart,
)

from hermes_async.adapters.model.answers import whole, words
from hermes_async.core.context import TaskContext
from hermes_async.domain.errors import InvalidInput

#: Characters of a text that are shown while it grows, its end: each event carries them all.
WINDOW: Final = 8_000
#: Characters of a text that are kept when the run ends without a result, its beginning.
KEPT: Final = 15_000
#: Characters, thoughts and calls of tools included, beyond which that is no answer, but a server that has
#: lost its way.
LONGEST: Final = 1_000_000
#: Characters of the arguments of a tool that are shown.
ARGUMENTS: Final = 100
#: Why an answer may end before its end, as its server says.
CUT: Final[Mapping[str | None, str]] = {
    "length": "the model has reached its limit of tokens",
    "content_filter": "a content filter has stopped the model",
}


class Shown:
    """The text of one run, so far; each answer of the model begins anew."""

    def __init__(self, ctx: TaskContext) -> None:
        self._ctx = ctx
        #: The text in pieces: to join them with each one would be most of what a long answer costs.
        self._pieces: list[str] = []
        #: Characters of the answer, shown or not.
        self._size = 0

    def begin(self) -> None:
        """Another answer begins; what was shown stays until it has text."""
        self._pieces, self._size = [], 0

    @property
    def has_text(self) -> bool:
        """Something of the answer was shown."""
        return bool(self._pieces)

    def take(self, event: ModelResponseStreamEvent) -> None:
        """Show what a piece of the stream adds to the text.

        Raises:
            InvalidInput: the answer has no end.
        """
        self._size += _size(event)
        added = words(event)
        if added:
            self._pieces.append(added)
            self._ctx.partial(partial(_end, self._pieces))
        if self._size > LONGEST:
            raise InvalidInput(f"the model's answer has more than {LONGEST:,} characters, and goes on")

    def end(self, answer: ModelResponse) -> None:
        """Say so if the last answer, which is the result, was cut short."""
        if why := CUT.get(answer.finish_reason):
            self._ctx.progress(None, f"the answer is not whole: {why}")

    def keep(self) -> None:
        """Show all of it, since there will be no result."""
        text = _joined(self._pieces)
        if len(text) > WINDOW:
            self._ctx.partial(whole(f"{text[:KEPT]}…" if len(text) > KEPT else text))

    def tools(self, calls: Iterable[ToolCallPart]) -> None:
        """Say which tools are called, and with what."""
        self._ctx.progress(None, ", ".join(f"{call.tool_name} {_arguments(call)}".strip() for call in calls))


def _end(pieces: list[str]) -> str:
    text = _joined(pieces)
    return whole(f"…{text[-WINDOW:]}" if len(text) > WINDOW else text)


def _joined(pieces: list[str]) -> str:
    pieces[:] = ["".join(pieces)] if pieces else []
    return pieces[0] if pieces else ""


def _size(event: ModelResponseStreamEvent) -> int:
    """Return how much longer a piece makes an answer."""
    if isinstance(event, PartDeltaEvent):
        said = (getattr(event.delta, name, None) for name in ("content_delta", "args_delta"))
    elif isinstance(event, PartStartEvent):
        said = (getattr(event.part, name, None) for name in ("content", "args", "tool_name"))
    else:
        return 0
    return sum(len(each) for each in said if isinstance(each, str))


def _arguments(call: ToolCallPart) -> str:
    try:
        values: Iterable[Any] = call.args_as_dict().values()
    except (ValueError, AssertionError):  # a model may write anything
        values = ()
    words = (value if isinstance(value, str) else json.dumps(value) for value in values)
    line = " ".join(" ".join(words).split())
    return line if len(line) <= ARGUMENTS else f"{line[: ARGUMENTS - 1]}…"
