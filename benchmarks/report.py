"""How figures are shown: a table for people, JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import psutil

from benchmarks.figure import Goal, Line, Spread

HEADINGS = ("figure", "hermes_async", "plain Celery", "ratio", "goal", "stretch")


def machine(server: str) -> dict[str, Any]:
    """Return what the numbers depend on, as it is now."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "redis": server,
        "load": load(),
    }


def load() -> float:
    """Return how many processes wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


class Stolen:
    """How much processor time others took: of the machine's (a hypervisor's steal)."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def percent(self) -> float:
        """Return the share since this object was made, in per cent."""
        now = psutil.cpu_times()
        passed = sum(now) - sum(self._before)
        stolen = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return float(round(100 * stolen / passed, 1)) if passed else 0.0


def as_table(found: Mapping[str, Sequence[Line]]) -> str:
    """Return a Markdown table that is also readable on a terminal."""
    cells = [HEADINGS, *(_cells(line) for lines in found.values() for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (cells[0], rule, *cells[1:])
    )


def as_values(found: Mapping[str, Sequence[Line]]) -> list[dict[str, Any]]:
    """Return the same as JSON values."""
    return [{"figure": name, **_values(line)} for name, lines in found.items() for line in lines]


def _values(line: Line) -> dict[str, Any]:
    return {
        "key": line.row.key,
        "label": line.row.label.strip(),
        "unit": line.row.unit,
        "hermes": asdict(line.hermes),
        "plain": asdict(line.plain) if line.plain else None,
        "ratio": line.ratio,
        "goal": asdict(line.row.goal) if line.row.goal else None,
        "met": line.met,
        "stretch_met": line.stretch_met,
    }


def _cells(line: Line) -> tuple[str, ...]:
    row, goal = line.row, line.row.goal
    return (
        f"{row.label}, {row.unit}" if row.unit else row.label,
        _spread(line.hermes),
        _spread(line.plain) if line.plain else "",
        "" if line.ratio is None else f"{line.ratio:.2f}",
        _verdict(goal, goal.limit if goal else None, line.met),
        _verdict(goal, goal.stretch if goal else None, line.stretch_met),
    )


def _spread(spread: Spread) -> str:
    median, low, high = (_number(value) for value in (spread.median, spread.low, spread.high))
    return median + (f" ({low}–{high})" if spread.low != spread.high else "")


def _verdict(goal: Goal | None, limit: float | None, met: bool | None) -> str:
    """Return a limit and whether it is kept; an `x` marks a limit of the ratio."""
    if goal is None or limit is None:
        return ""
    said = f"{goal.sign} {limit:g}{'x' if goal.of == 'ratio' else ''}"
    return said if met is None else f"{said} {'yes' if met else 'NO'}"


def _number(value: float) -> str:
    """Return three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
