"""What a docstring says of a function and of its parameters, for a model that is to call it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

_SECTION: Final = re.compile(r"(Args|Arguments|Parameters|Returns|Return|Yields|Raises|Examples?|Notes?):")
_PARAMETER: Final = re.compile(r"\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*)")


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring with an `Args:` section, if it has one."""

    #: What it says before its sections.
    text: str
    #: What it says of each parameter.
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Docstring:
        """Read a function's docstring."""
        lines = (inspect.getdoc(function) or "").splitlines()
        starts = [number for number, line in enumerate(lines) if _SECTION.fullmatch(line.strip())]
        text = "\n".join(lines[: starts[0]] if starts else lines).strip()
        return cls(text, dict(_parameters(_section(lines, starts))))


def _section(lines: list[str], starts: list[int]) -> list[str]:
    """Return the lines of the section on parameters."""
    for start, end in pairwise([*starts, len(lines)]):
        if lines[start].strip() in ("Args:", "Arguments:", "Parameters:"):
            return lines[start + 1 : end]
    return []


def _parameters(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each parameter with what is said of it, its further lines joined to the first."""
    block = inspect.cleandoc("\n".join(["", *lines])).splitlines()
    name, said = "", ""
    for line in block:
        found = _PARAMETER.fullmatch(line)
        if found:
            if name:
                yield name, said
            name, said = found.groups()
        elif line.strip():
            said = f"{said} {line.strip()}".strip()
    if name:
        yield name, said
