"""What a figure is: rows of numbers, measured on two sides in turn."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.stage import Stage

#: The numbers of one run, by the keys of the figure's rows.
Sample = Mapping[str, float]
Run = Callable[[], Sample]

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "≤": operator.le,
    "≥": operator.ge,
    "=": operator.eq,
}


@dataclass(frozen=True)
class Goal:
    """What our own number, or its ratio to plain Celery's, is to reach."""

    sign: Literal["<", "≤", "≥", "="]
    limit: float
    #: What we would be proud of.
    stretch: float | None = None
    of: Literal["hermes", "ratio"] = "hermes"

    def met(self, value: float | None, limit: float | None) -> bool | None:
        """Tell whether a value keeps one of the limits; None: one of the two is not there."""
        return None if value is None or limit is None else _COMPARE[self.sign](value, limit)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    label: str
    unit: str
    goal: Goal | None = None


@dataclass(frozen=True)
class Sides:
    """One run on each side; a figure that plain Celery has no counterpart for has one side only."""

    hermes: Run
    plain: Run | None = None


@dataclass(frozen=True)
class Figure:
    """A thing that is measured.

    `open` prepares the stage (with smaller numbers when the second argument is true) and yields the sides.
    """

    name: str
    rows: Sequence[Row]
    open: Callable[[Stage, bool], AbstractContextManager[Sides]]


@dataclass(frozen=True)
class Spread:
    """The median of some runs, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[Sample], key: str) -> Spread | None:
        """Return the spread of a number over samples; None when they do not have it."""
        values = [sample[key] for sample in samples if key in sample]
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Line:
    """A row with its numbers."""

    row: Row
    hermes: Spread
    plain: Spread | None

    @property
    def ratio(self) -> float | None:
        """How the medians compare; None without a counterpart."""
        return self.hermes.median / self.plain.median if self.plain and self.plain.median else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None: there is none, or nothing to compare with."""
        goal = self.row.goal
        return goal.met(self._judged, goal.limit) if goal else None

    @property
    def stretch_met(self) -> bool | None:
        """The same of the stretch."""
        goal = self.row.goal
        return goal.met(self._judged, goal.stretch) if goal else None

    @property
    def _judged(self) -> float | None:
        by_ratio = self.row.goal is not None and self.row.goal.of == "ratio"
        return self.ratio if by_ratio else self.hermes.median


def measure(
    figure: Figure, stage: Stage, runs: int, quick: bool, told: Callable[[str], object]
) -> list[Line]:
    """Measure a figure: so many runs on each side, one side after the other, over and over."""
    ours: list[Sample] = []
    theirs: list[Sample] = []
    with figure.open(stage, quick) as sides:
        for number in range(1, runs + 1):
            told(f"{figure.name}: run {number} of {runs}")
            ours.append(sides.hermes())
            if sides.plain is not None:
                theirs.append(sides.plain())
    spreads = ((row, Spread.of(ours, row.key)) for row in figure.rows)
    return [
        Line(row, spread, Spread.of(theirs, row.key))
        for row, spread in spreads
        if spread  # else this platform cannot tell, or a quick run leaves it out
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is not exceeded by `percent` of all."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]
