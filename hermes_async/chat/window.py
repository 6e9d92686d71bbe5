"""What of a long conversation a model is sent: the newest turns, whole, from something that was said on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart

#: What the model is told as soon as a part of the conversation is left out.
LEFT_OUT: Final = (
    "The older part of this conversation is left out here, for its length. Ask the user, and let `list` "
    "tell you of tasks, rather than guess what was in it."
)
#: Bytes of UTF-8 that are taken for one token.
BYTES: Final = 4


def first_sent(messages: Sequence[ModelMessage], most: int) -> int:
    """Return where that begins which a model is sent: at 0, or so that there is room for as much again.

    Providers keep what they have read before for the next request, as long as the beginning is the same: so
    it changes seldom, and then by much.

    Args:
        messages: the conversation.
        most: tokens that may be sent.
    """
    sizes = [_tokens(message) for message in messages]
    return 0 if sum(sizes) <= most else _newest(messages, sizes, most // 2)


def first_of_half(messages: Sequence[ModelMessage], first: int) -> int | None:
    """Return where the newer half begins of what was too much; None: it is one turn, which is sent whole.

    Args:
        messages: the conversation.
        first: where that began which was too much.
    """
    sizes = [_tokens(message) for message in messages]
    later = _newest(messages, sizes, sum(sizes[first:]) // 2)
    return later if later > first else None


def _newest(messages: Sequence[ModelMessage], sizes: Sequence[int], most: int) -> int:
    """Return where the newest turns begin that have `most` tokens together; the last turn is always one."""
    first, tokens = None, 0
    for index in range(len(messages) - 1, -1, -1):
        tokens += sizes[index]
        if first is not None and tokens > most:
            break
        if _begins_a_turn(messages[index]):
            first = index
    return first or 0


def _begins_a_turn(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and isinstance(message.parts[0], UserPromptPart)


def _tokens(message: ModelMessage) -> int:
    said = (getattr(part, name, None) for part in message.parts for name in ("content", "args", "signature"))
    return sum(len(str(each).encode(errors="replace")) for each in said if each) // BYTES
