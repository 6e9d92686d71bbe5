"""The little Markdown that answers have, as a terminal shows it: headings, bold words, code, lists."""

from __future__ import annotations

import re
from typing import Final

from hermes_async.cli.words import harmless

BOLD, DIM, CODE, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"
_MARKS: Final = re.compile(r"\*\*(?P<bold>[^*\s](?:[^*]*[^*\s])?)\*\*|`(?P<code>[^`]+)`")


class Markup:
    """Draws lines one after the other; it remembers whether it is within a block of code."""

    def __init__(self) -> None:
        self._in_code = False

    def draw(self, raw: str) -> str:
        """Return a line with colours, and without anything else that a terminal would obey."""
        text = harmless(raw)
        if text.lstrip().startswith("```"):
            self._in_code = not self._in_code
            return f"{DIM}{text}{PLAIN}"
        if self._in_code:
            return f"{CODE}{text}{PLAIN}"
        if re.match(r"#{1,6} ", text):
            return f"{BOLD}{text.lstrip('#').lstrip()}{PLAIN}"
        text = re.sub(r"^(\s*)[*-] ", r"\1• ", text)
        return _MARKS.sub(_drawn, text)


def _drawn(found: re.Match[str]) -> str:
    if found["bold"] is not None:
        return f"{BOLD}{found['bold']}{PLAIN}"
    return f"{CODE}{found['code']}{PLAIN}"
