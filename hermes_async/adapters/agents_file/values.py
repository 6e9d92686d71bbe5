"""Nodes become plain values: `${VAR}` is filled in, and takes the type of its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hermes_async.adapters.agents_file.sentences import Fault
from hermes_async.adapters.agents_file.shape import ROOT, Loc, Shape, label
from hermes_async.adapters.agents_file.source import MAX_BYTES, Listing, Node, Scalar, Table, resolve, shorten

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\})?")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class _Wrong(Exception):
    """A `${…}` that cannot be filled in; the message is the sentence."""


class Values:
    """Turns nodes into values and keeps the faults it met, so that the first in the file can be told."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._room = MAX_BYTES
        self.faults: list[Fault] = []

    def of(self, node: Node, shape: Shape = ROOT, loc: Loc = ()) -> Any:
        """Return the value of a node, which stands at `loc`."""
        if isinstance(node, Table):
            return {key: self.of(item, shape.below(key), (*loc, key)) for key, item in node.items.items()}
        if isinstance(node, Listing):
            return [self.of(item, shape.below(at), (*loc, at)) for at, item in enumerate(node.items)]
        return self._scalar(node, shape, loc)

    def _scalar(self, node: Scalar, shape: Shape, loc: Loc) -> Any:
        text = node.text
        if node.place.line and "${" in text:
            text = self._filled(text, loc)
        is_text = not node.plain if text == node.text else shape.is_text
        if is_text:
            return text
        if not text:
            self.faults.append(Fault(loc, f"{label(loc)} is empty; give a value, or delete the line"))
        return resolve(text)

    def _filled(self, text: str, loc: Loc) -> str:
        try:
            filled = _VARIABLE.sub(self._replacement, text)
        except _Wrong as wrong:
            self.faults.append(Fault(loc, str(wrong)))
            return text
        return filled

    def _replacement(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        inside = _INSIDE.fullmatch(match[1])
        if inside is None or not match[2]:
            said = shorten(match[0], 30)
            raise _Wrong(
                f"`{said}` is not a variable; write ${{NAME}} or ${{NAME:-default}}, or $${{ for a plain ${{"
            )
        return self._spend(self._variable(inside[1], inside[2]))

    def _variable(self, name: str, default: str | None) -> str:
        value = self._environ.get(name)
        if default is not None:
            return value or default
        if value is None:
            raise _Wrong(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value

    def _spend(self, value: str) -> str:
        self._room -= len(value)
        if self._room < 0:
            raise _Wrong(f"the variables fill in more than {MAX_BYTES:,} characters; shorten them")
        return value
