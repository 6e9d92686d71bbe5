"""A context that remembers what an agent told it, in place of one that belongs to a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Recorder:
    """Has what the examples use of a TaskContext."""

    attempt: int = 1
    told: list[tuple[float, str]] = field(default_factory=list)
    partials: list[tuple[str, Any]] = field(default_factory=list)

    def progress(self, percent: float, message: str = "") -> None:
        self.told.append((percent, message))

    def partial(self, value: Any, name: str) -> None:
        self.partials.append((name, value))

    def percents(self) -> Iterator[float]:
        return (percent for percent, _ in self.told)

    def assert_went_to_100(self) -> None:
        percents = list(self.percents())
        assert percents == sorted(percents)
        assert percents[-1] == 100
