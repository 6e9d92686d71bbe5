"""A waterfall: what happened in a task, one line each, with bars on a terminal and plain lines in a pipe."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from hermes_async.cli.words import line, seconds
from hermes_async.domain.timeline import Stretch

#: Columns of a bar, at least; and of names, at most.
_LEAST_BAR, _LONGEST_NAME = 12, 44
#: Columns that are drawn on in any case; a terminal that has fewer wraps its lines.
_NARROWEST: Final = 40
#: Columns of a length of time.
_LENGTH: Final = 7
#: Eighths of a column, from the left.
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def drawn(rows: Sequence[Stretch], now: float, width: int | None = None) -> list[str]:
    """Return the lines of a waterfall for a terminal.

    Args:
        rows: as `timeline` gives them; they are drawn to the scale of the longest.
        now: Unix seconds, for what goes on.
        width: columns; by default those of the terminal.
    """
    columns = max(_NARROWEST, width or shutil.get_terminal_size().columns)
    names = [_name(row) for row in rows]
    longest_said = min(max((len(_said(row, 200)) for row in rows), default=0), max(14, columns // 3))
    room = columns - longest_said - _LEAST_BAR - _LENGTH - 3
    widest = min(max(map(len, names), default=0), _LONGEST_NAME, room)
    first = min((row.start for row in rows), default=0.0)
    last = max((_end(row, now) for row in rows), default=0.0)
    space = columns - widest - _LENGTH - 3 - longest_said
    scale = space / max(last - first, 0.001)
    return [
        _line(row, f"{_cut(name, widest):<{widest}}", _bar(row, first, scale, space, now), now, longest_said)
        for row, name in zip(rows, names, strict=True)
    ]


def plain(rows: Sequence[Stretch], now: float) -> list[str]:
    """Return lines of a name, the seconds since the beginning and of its length, and what is said of it."""
    first = min((row.start for row in rows), default=0.0)
    return [
        "\t".join(
            (_name(row), f"{row.start - first:.3f}", f"{_end(row, now) - row.start:.3f}", _said(row, 2_000))
        )
        for row in rows
    ]


def as_json(rows: Sequence[Stretch]) -> list[dict[str, Any]]:
    """Return the rows for programs."""
    return [asdict(row) for row in rows]


def _name(row: Stretch) -> str:
    return "  " * row.depth + line(row.name, 120)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _end(row: Stretch, now: float) -> float:
    return max(row.start, now if row.end is None else row.end)


def _said(row: Stretch, longest: int) -> str:
    going_on = "goes on" if row.end is None else ""
    return line(" ".join(filter(None, (row.fault and f"✗ {row.fault}", row.note, going_on))), longest)


def _line(row: Stretch, name: str, bar: str, now: float, longest: int) -> str:
    colour = "red" if row.fault else "cyan" if row.end is None else "green"
    took = _took(_end(row, now) - row.start)
    text, said = f"{name} {click.style(bar, fg=colour)} {took:>{_LENGTH}}", _said(row, longest)
    return f"{text} {click.style(said, fg='red' if row.fault else None, dim=not row.fault)}" if said else text


def _took(length: float) -> str:
    return seconds(length) if length >= 1 else f"{length * 1000:.0f} ms"


def _bar(row: Stretch, first: float, scale: float, space: int, now: float) -> str:
    """Return a bar of whole columns and, at its end, eighths of one; what is very short still shows."""
    begin = min(int((row.start - first) * scale), space - 1)
    eighths = max(1, round((_end(row, now) - first) * scale * 8) - begin * 8)
    whole, rest = divmod(min(eighths, (space - begin) * 8), 8)
    bar = " " * begin + _EIGHTHS[-1] * whole + (_EIGHTHS[rest] if rest else "")
    return f"{bar:<{space}}"
