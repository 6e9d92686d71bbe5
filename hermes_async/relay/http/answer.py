"""Answers that succeed, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import JSONResponse

#: Bytes of a list; one that is longer is cut.
ANSWER_BYTES: Final = 4_000_000


class Json(JSONResponse):
    """An answer that is the same for everybody who asks now, and for nobody later."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return to_json(content)


def bounded(items: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return as many of the items as one answer holds, and at least one if there is any."""
    room = ANSWER_BYTES
    for count, item in enumerate(items):
        room -= len(to_json(item))
        if room < 0:
            return items[: max(1, count)]
    return items


def described(model: type[BaseModel], description: str, **more: Any) -> dict[str, Any]:
    """Return how OpenAPI tells of an answer."""
    return {"model": model, "description": description, **more}
