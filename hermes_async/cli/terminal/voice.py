"""How a chat is told in a pipe: plain lines, or one JSON object on each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import click

from hermes_async.chat.pieces import Piece, Text, ToolCalled, TurnBegan, TurnEnded, as_json
from hermes_async.cli.terminal.board import short
from hermes_async.cli.terminal.slash import Reply
from hermes_async.cli.words import as_json as as_plain_json
from hermes_async.cli.words import harmless, line, seconds, shown
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap

#: What becomes of a task, as a person is told.
_VERBS: Final[Mapping[str, str]] = {
    "task.completed": "completed",
    "task.failed": "failed",
    "task.cancelled": "was cancelled",
    "task.rejected": "was refused",
    "task.input_required": "asks",
}


class Voice(Protocol):
    """Tells what happens in a chat."""

    def piece(self, piece: Piece) -> None:
        """Tell a piece of a turn."""
        ...

    def news(self, event: AnyEvent) -> None:
        """Tell an entry of the inbox."""
        ...

    def event(self, item: AnyEvent | Gap) -> None:
        """Tell whatever happens in the session, to who wants to know all."""
        ...

    def reply(self, said: str, reply: Reply) -> None:
        """Tell what a command answers."""
        ...

    def fault(self, error: Exception, said: str = "") -> None:
        """Tell what cannot be done; `said`: what has no turn because of it."""
        ...

    def note(self, text: str) -> None:
        """Tell something beside the conversation."""
        ...


class Plain:
    """Answers as they come; all else on lines that begin with a mark: `*` news, `>` a tool, `!` a fault."""

    def __init__(self, name_of: Callable[[AnyEvent], str]) -> None:
        self._name_of = name_of
        #: A terminal would obey what an answer contains; in a pipe it stays as it is.
        self._is_drawn = sys.stdout.isatty()
        self._in_line = False

    def piece(self, piece: Piece) -> None:
        """Print it."""
        if isinstance(piece, Text):
            self._in_line = not piece.text.endswith("\n")
            click.echo(harmless(piece.text) if self._is_drawn else piece.text, nl=False)
            sys.stdout.flush()
        elif isinstance(piece, TurnBegan):
            for event in piece.news:
                self.news(event)
        elif isinstance(piece, ToolCalled):
            self._print(f"> {call_line(piece)}")
        elif isinstance(piece, TurnEnded):
            self._end_line()
            if said := end_line(piece):
                self._print(f"! {said}")

    def news(self, event: AnyEvent) -> None:
        """Print it on a line."""
        self._print(f"* {news_line(event, self._name_of(event))}")

    def event(self, item: AnyEvent | Gap) -> None:
        """Say nothing: the inbox tells what matters."""

    def reply(self, said: str, reply: Reply) -> None:
        """Print its lines."""
        for each in reply.lines:
            self._print(harmless(each) if self._is_drawn else each)

    def fault(self, error: Exception, said: str = "") -> None:
        """Print it beside the output."""
        self._end_line()
        click.echo(f"! {harmless(str(error))}", err=True)

    def note(self, text: str) -> None:
        """Print it beside the output."""
        self._end_line()
        click.echo(harmless(text), err=True)

    def _print(self, text: str) -> None:
        self._end_line()
        click.echo(text)
        sys.stdout.flush()

    def _end_line(self) -> None:
        if self._in_line:
            click.echo()
            self._in_line = False


class JsonLines:
    """Everything as JSON: the pieces of turns (`chat.*`), and the session's events as on every transport."""

    def piece(self, piece: Piece) -> None:
        """Print it."""
        self._print(as_json(piece))

    def news(self, event: AnyEvent) -> None:
        """Print which event was taken out of the inbox."""
        self._print({"type": "chat.news", "event": event.model_dump(mode="json")})

    def event(self, item: AnyEvent | Gap) -> None:
        """Print it as it is."""
        if isinstance(item, Gap):
            self._print({"gap": [item.first, item.last]})  # as `task watch --json` does
        else:
            self._print(item.model_dump(mode="json"))

    def reply(self, said: str, reply: Reply) -> None:
        """Print its value."""
        self._print({"type": "chat.reply", "said": said, **reply.value})

    def fault(self, error: Exception, said: str = "") -> None:
        """Print it."""
        self._print({"type": "chat.fault", "kind": type(error).__name__, "error": str(error)})

    def note(self, text: str) -> None:
        """Print it."""
        self._print({"type": "chat.note", "text": text})

    def _print(self, value: Mapping[str, Any]) -> None:
        click.echo(as_plain_json(value))
        sys.stdout.flush()


def news_line(event: AnyEvent, name: str) -> str:
    """Return on one line what an entry of the inbox says."""
    if event.type not in _VERBS:
        return line(getattr(event.data, "text", event.type))
    said = f"{name} {short(event.task_id)} {_VERBS[event.type]}"
    detail = _detail(event)
    return f"{said}: {detail}" if detail else said


def _detail(event: AnyEvent) -> str:
    data: Any = event.data
    if event.type == "task.input_required":
        return f"{line(data.question, 300)} (/answer {short(event.task_id)} VALUE)"
    if getattr(data, "error", None):
        return line(f"{data.reason}: {data.error.message}")
    output = getattr(data, "output", None)
    return "" if output is None else line(shown(output))


def call_line(piece: ToolCalled) -> str:
    """Return on one line which tool was called."""
    values = [line(value, 80) for value in piece.arguments.values() if value is not None]
    return " ".join([line(piece.tool, 60), *values])


def end_line(piece: TurnEnded) -> str:
    """Return what is to be said at the end of a turn: nothing, when it went well."""
    if piece.how == "interrupted":
        return "interrupted"
    if piece.how == "done":
        return ""
    again = f"; again in {seconds(piece.again_in)}" if piece.again_in is not None else "; /again asks again"
    return f"{harmless(piece.error)}{again}"
