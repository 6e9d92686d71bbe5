"""How figures are shown: a table for people, JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import psutil

from benchmarks.figure import Goal, Line, Spread

HEADINGS = ("figure", "hermes_async", "plain Celery", "ratio", "goal", "met?")


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
    }


def _cells(line: Line) -> tuple[str, ...]:
    unit = line.row.unit
    return (
        line.row.label,
        _spread(line.hermes, unit),
        _spread(line.plain, unit) if line.plain else "",
        "" if line.ratio is None else f"{line.ratio:.2f}",
        _goal(line.row.goal, unit),
        {None: "", True: "yes", False: "NO"}[line.met],
    )


def _spread(spread: Spread, unit: str) -> str:
    median, low, high = (_number(value) for value in (spread.median, spread.low, spread.high))
    return f"{median} {unit}".strip() + (f" ({low}–{high})" if spread.low != spread.high else "")


def _goal(goal: Goal | None, unit: str) -> str:
    if goal is None:
        return ""
    if goal.of == "ratio":
        return f"ratio < {goal.limit:g}"
    return f"{goal.limit:g}" if goal.exact else f"< {goal.limit:g} {unit}"


def _number(value: float) -> str:
    """Return three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
