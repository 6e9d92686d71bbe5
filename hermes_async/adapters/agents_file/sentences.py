"""From what pydantic found wrong to a sentence: what, where, and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hermes_async.adapters.agents_file.shape import Loc, label, shape_at
from hermes_async.adapters.agents_file.source import shorten
from hermes_async.domain.errors import did_you_mean
from hermes_async.domain.urls import masked

#: How to call a part of the file by its depth.
_PARTS = {0: "at the top of the file", 2: "in an agent", 4: "in a subagent"}

_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}


class Fault(NamedTuple):
    """A sentence (made when it is told: only one of many is) about what stands at `loc`, or about its key."""

    loc: Loc
    sentence: str | Callable[[], str]
    at_key: bool = False

    def told(self) -> str:
        """Return the sentence."""
        return self.sentence if isinstance(self.sentence, str) else self.sentence()


def faults_of(error: ValidationError) -> Iterator[Fault]:
    """Yield every fault that pydantic found."""
    for detail in error.errors(include_url=False):
        yield _fault(detail)


def _fault(detail: ErrorDetails) -> Fault:
    loc = detail["loc"]
    if loc[-1:] == ("[key]",):
        return Fault(loc[:-1], partial(_bad_name, loc[:-1]), at_key=True)
    if detail["type"] == "extra_forbidden":
        return Fault(loc, partial(unknown_key, loc), at_key=True)
    if detail["type"] == "missing":
        return Fault(loc[:-1], partial(_missing, loc))
    return Fault(loc, partial(_wrong_value, detail))


def _bad_name(loc: Loc) -> str:
    return f"{shorten(str(loc[-1]))!r} cannot name an agent; use letters, digits, `_`, `-` and `.`"


def unknown_key(loc: Loc) -> str:
    """Return the sentence for a key that nobody knows, with the nearest one that is known."""
    key, known = shorten(str(loc[-1])), sorted(shape_at(loc[:-1]).keys())
    where = _PARTS.get(len(loc) - 1) or f"in {label(loc[:-1])}"
    cure = did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
    return f"unknown key {key!r} {where}{cure}"


def _missing(loc: Loc) -> str:
    key = str(loc[-1])
    if isinstance(loc[-2], int):
        return f"{label(loc[:-1])} has no {key}; add `{key}: name`"
    return f"{label(loc[:-1])} has no {key}; add `{key}: …`"


def _wrong_value(detail: ErrorDetails) -> str:
    loc, value, context = detail["loc"], detail["input"], detail.get("ctx", {})
    if detail["type"] == "value_error":
        return f"{label(loc)} {context['error']}"
    must = shape_at(loc).must
    if detail["type"] == "less_than_equal" and must.endswith("greater than 0"):
        return f"{label(loc)} must be at most {context['le']:.0f}{_spoken(loc, value)}"
    return f"{label(loc)} must be {must}{_spoken(loc, value)}{_cure(loc, value)}"


def _cure(loc: Loc, value: Any) -> str:
    """Return what helps most people who wrote this value here."""
    shape = shape_at(loc)
    if shape.kind is Literal and isinstance(value, str):
        return did_you_mean(value, (choice.strip('"') for choice in shape.must.split(" or ")))
    if shape.is_text and isinstance(value, int | float):
        return "; put quotes around it"
    if shape.kind is bool and str(value).lower() in _SWITCHES:
        return f"; write {_SWITCHES[str(value).lower()]}"
    if shape.kind is tuple and isinstance(value, str):
        return f"; write [{shorten(value)}]"
    return ""


def _spoken(loc: Loc, value: Any) -> str:
    """Return `, not VALUE` as the file has it, short, and nothing of what is secret."""
    if isinstance(value, dict):
        return ", not keys and values"
    if isinstance(value, list):
        return ", not a list"
    if loc[-1] in ("secret", "api_key"):
        return ""
    shown = masked(value) if isinstance(value, str) else value
    return f", not {shorten(json.dumps(shown, ensure_ascii=False))}"
