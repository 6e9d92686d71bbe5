"""What others see of a run: the text as it comes, and the tools that are called."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from pydantic_ai.messages import (
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


class Shown:
    """The text of one run, so far; each answer of the model begins anew."""

    def __init__(self, ctx: TaskContext) -> None:
        self._ctx = ctx
        self.text = ""
        #: Characters of the answer, shown or not.
        self._size = 0

    def begin(self) -> None:
        """Another answer begins; what was shown stays until it has text."""
        self.text, self._size = "", 0

    def take(self, event: ModelResponseStreamEvent) -> None:
        """Show what a piece of the stream adds to the text.

        Raises:
            InvalidInput: the answer has no end.
        """
        self._size += _size(event)
        added = words(event)
        if added:
            self.text += added
            cut = len(self.text) > WINDOW
            self._ctx.partial(whole(f"…{self.text[-WINDOW:]}" if cut else self.text))
        if self._size > LONGEST:
            raise InvalidInput(f"the model's answer has more than {LONGEST:,} characters, and goes on")

    def keep(self) -> None:
        """Show all of it, since there will be no result."""
        if len(self.text) > WINDOW:
            cut = len(self.text) > KEPT
            self._ctx.partial(whole(f"{self.text[:KEPT]}…" if cut else self.text))

    def tools(self, calls: Iterable[ToolCallPart]) -> None:
        """Say which tools are called, and with what."""
        self._ctx.progress(None, ", ".join(f"{call.tool_name} {_arguments(call)}".strip() for call in calls))


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
