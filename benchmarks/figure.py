"""What a figure is: rows of numbers, measured on two sides in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from benchmarks.stage import Stage

#: The numbers of one run, by the keys of the figure's rows.
Sample = Mapping[str, float]
Run = Callable[[], Sample]


@dataclass(frozen=True)
class Goal:
    """A limit of our own number, or of its ratio to plain Celery's."""

    limit: float
    of: Literal["hermes", "ratio"] = "hermes"
    #: A number that may not be missed even by a little: exactly the limit.
    exact: bool = False

    def is_met(self, value: float) -> bool:
        """Tell whether the value is good enough."""
        return value == self.limit if self.exact else value < self.limit


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
        if self.row.goal is None:
            return None
        value = self.ratio if self.row.goal.of == "ratio" else self.hermes.median
        return None if value is None else self.row.goal.is_met(value)


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
        if spread  # else this platform cannot tell
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is not exceeded by `percent` of all."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]
