"""The limits of a task, which bind it and all tasks below it: what they allow, and what to say if not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from hermes_async.domain.agent import RunLimits
from hermes_async.domain.usage import NANO, NO_USAGE, Usage

#: For each limit that a store counts, what it counts.
COUNTED: Final = {
    "requests": "requests",
    "tool_calls": "tool calls",
    "total_tokens": "tokens",
    "cost_usd": "US dollars",
}
#: Those whose amount is known only afterwards: with nothing left of them, there is nothing to be had.
LATER: Final = {"limits.total_tokens", "limits.cost_usd"}


class Budget(BaseModel):
    """The limits of one task, as every task below it knows them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str
    limits: RunLimits

    @property
    def bounds(self) -> tuple[int | None, ...]:
        """What may be counted of each in turn; None: any number."""
        return tuple(
            _billionths(limit) if limit is not None and name == "cost_usd" else limit
            for name, limit in ((name, getattr(self.limits, name)) for name in COUNTED)
        )

    def told(self, used: Usage) -> list[str]:
        """Return of each limit how much is used, in words."""
        return [amounts for amounts, *_ in self._each(used, NO_USAGE)]

    def exceeded(self, used: Usage) -> str:
        """Return what is used of a limit that is exceeded, in words; nothing while all are kept."""
        each = self._each(used, NO_USAGE)
        return next((f"{told} ({name})" for told, name, value, bound in each if value > bound), "")

    def refuses(self, used: Usage, asked: Usage) -> str:
        """Return what is used of a limit that does not allow what is asked for, in words."""
        for told, name, value, bound in self._each(used, asked):
            if value > bound or (value == bound and name in LATER):
                return f"{told} ({name})"
        return ""

    def _each(self, used: Usage, asked: Usage) -> Iterator[tuple[str, str, int, int]]:
        so_far, then = _sums(used), _sums(used + asked)
        for name, bound, done, value in zip(COUNTED, self.bounds, so_far, then, strict=True):
            if bound is not None:
                amounts = f"{_told(name, done)} of {_told(name, bound)} {COUNTED[name]}"
                yield amounts, f"limits.{name}", value, bound


@dataclass(frozen=True)
class Spent:
    """What has become of a `spend`."""

    #: False: what was asked for is not granted, and not counted.
    granted: bool
    #: False: the attempt is not running any more.
    ours: bool
    #: What the task has consumed so far, and the tree of each of its budgets in turn.
    usage: Usage
    trees: Sequence[Usage]


def budget_is_spent(task_id: str, told: str) -> str:
    """Return a sentence on a budget of which nothing is left."""
    return f"the budget of task {task_id} is spent: {told}"


def seconds_are_over(task_id: str, limits: RunLimits) -> str:
    """Return a sentence on a budget whose time is over."""
    return budget_is_spent(task_id, f"{limits.seconds:g} of {limits.seconds:g} seconds (limits.seconds)")


def _sums(usage: Usage) -> tuple[int, ...]:
    requests, tool_calls, into, out, cost = usage.counts
    return requests, tool_calls, into + out, cost


def _billionths(dollars: float) -> int:
    return max(1, round(dollars * NANO))


def _told(name: str, value: int) -> str:
    return f"{value / NANO:.6f}".rstrip("0").rstrip(".") if name == "cost_usd" else f"{value:,}"
