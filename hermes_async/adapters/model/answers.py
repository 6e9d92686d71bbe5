"""What the answer of a model brings: its words, as they come, and what it has cost."""

from __future__ import annotations

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)

from hermes_async.adapters.model.prices import cost


def words(event: ModelResponseStreamEvent) -> str:
    """Return the text that a piece of the stream brings; the first of a part comes with its start."""
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    return ""


def whole(text: str) -> str:
    """Return text that has a UTF-8 form: servers cut characters in two, and models write halves of them."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def paid(answer: ModelResponse, full: str) -> float | None:
    """Return what an answer has cost, in US dollars: as its server says, else by the price list.

    Args:
        answer: a whole one.
        full: `provider:model`, by which the price is looked up.
    """
    usage = answer.usage
    if usage.cost is not None:
        return float(usage.cost)
    return cost(full, usage.input_tokens, usage.output_tokens)
