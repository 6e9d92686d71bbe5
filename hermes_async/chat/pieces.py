"""What a turn of the parent consists of, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.usage import Usage


@dataclass(frozen=True)
class TurnBegan:
    """A turn has begun: somebody said something, or tasks have news, or both."""

    type: ClassVar[str] = "chat.turn_began"
    turn: int
    #: What a person said; None: only news brought it about.
    said: str | None = None
    #: What lay in the inbox: the turn is about this, too.
    news: Sequence[AnyEvent] = ()


@dataclass(frozen=True)
class Text:
    """The next words of the answer."""

    type: ClassVar[str] = "chat.text"
    turn: int
    text: str


@dataclass(frozen=True)
class ToolCalled:
    """The model has called a tool; its result follows."""

    type: ClassVar[str] = "chat.tool_called"
    turn: int
    call_id: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ToolReturned:
    """What a tool told the model."""

    type: ClassVar[str] = "chat.tool_returned"
    turn: int
    call_id: str
    tool: str
    result: str


@dataclass(frozen=True)
class TurnEnded:
    """The turn is over, and what was said in it is kept."""

    type: ClassVar[str] = "chat.turn_ended"
    turn: int
    how: Literal["done", "interrupted", "failed"] = "done"
    #: Why it failed, in one sentence.
    error: str = ""
    #: Seconds after which it is tried again by itself; None: it is not.
    again_in: float | None = None
    usage: Usage = field(default_factory=Usage)


Piece = TurnBegan | Text | ToolCalled | ToolReturned | TurnEnded


def as_json(piece: Piece) -> dict[str, Any]:
    """Return a piece as plain JSON values; its `type` comes first."""
    plain = {"type": piece.type, **vars(piece)}
    if isinstance(piece, TurnBegan):
        plain["news"] = [event.model_dump(mode="json") for event in piece.news]
    elif isinstance(piece, TurnEnded):
        plain["usage"] = piece.usage.model_dump(mode="json")
    return plain
