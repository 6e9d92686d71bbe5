"""The rows above the line that is typed: a bar for each task that runs, and what is asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.utils import get_cwidth

from hermes_async.cli.terminal.board import Row, short
from hermes_async.cli.words import seconds
from hermes_async.domain.task import TaskStatus

#: Styled pieces of text.
Fragments = StyleAndTextTuples

#: Rows that are drawn at once; of the others there is a count.
MOST: Final = 8
_CELLS: Final = 12
_WHAT: Final = {TaskStatus.QUEUED: "waiting", TaskStatus.RUNNING: "running"}


def bars(rows: Iterable[Row], width: int) -> Fragments:
    """Return a line for each row, those that ask something first."""
    ranked = sorted(rows, key=lambda row: (not row.question, row.status is TaskStatus.QUEUED, row.since))
    drawn: Fragments = []
    for row in ranked[:MOST]:
        drawn += [*_bar(row, width), ("", "\n")]
    if len(ranked) > MOST:
        drawn.append(("class:dim", f" … and {len(ranked) - MOST} more\n"))
    return drawn


def _bar(row: Row, width: int) -> Fragments:
    head = f" {cut(row.name, 16):<16} {short(row.id)} "
    if row.question:
        return _fitted([("class:asks", head), ("class:asks", f"asks: {row.question}")], width)
    took = seconds(max(0.0, time.time() - row.since))
    done = round(_CELLS * (row.percent or 0) / 100)
    known = row.percent is not None
    percent = f"{row.percent:3.0f}%" if row.percent is not None else "    "
    said = row.message or _WHAT.get(row.status, "")
    return _fitted(
        [
            ("class:who", head),
            ("class:bar", "━" * done),
            ("class:rest", ("━" if known else "·") * (_CELLS - done)),
            ("", f" {percent} {took:>6}  "),
            ("class:dim", said),
        ],
        width,
    )


def _fitted(fragments: Sequence[tuple[str, str]], width: int) -> Fragments:
    fitted: Fragments = []
    left = width - 1
    for style, text in fragments:
        shown = cut(text, left)
        fitted.append((style, shown))
        left -= get_cwidth(shown)
    return fitted


def cut(text: str, width: int) -> str:
    """Return as much of a text as fits into so many cells."""
    if get_cwidth(text) <= width:
        return text
    kept, used = "", 1
    for letter in text:
        used += get_cwidth(letter)
        if used > width:
            break
        kept += letter
    return f"{kept}…" if width > 0 else ""
