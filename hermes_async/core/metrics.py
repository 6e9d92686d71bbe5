"""What has happened since the state is new, counted with the events themselves, and what is now.

The pen counts an event in the same script that logs it, so a count is as true as the log: nothing is lost
with a process that dies, and what is written twice counts once. A count is a field of one hash; nothing ever
takes from it, neither retention nor the end of a session.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import TaskStatus
from hermes_async.domain.usage import Usage

#: The upper edges of the buckets of a histogram, in ms; `lua/pen.lua` has the same.
EDGES: Final = (
    *(10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000),
    *(60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000),
)
#: The statuses of tasks that have not ended.
OPEN: Final = (TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.INPUT_REQUIRED)
#: For events that say so, the field that tells why: it has few values.
_WHY: Final = {
    "task.retrying": "reason",
    "task.failed": "reason",
    "task.rejected": "reason",
    "task.attempt_lost": "cause",
}
#: What is spent, in the order of `Usage.counts`; `lua/accounts.lua` has the same.
SPENT: Final = ("requests", "tool_calls", "input_tokens", "output_tokens", "cost")
#: How many fields there may be before models that are new to an agent are counted as one, `other`.
MOST_FIELDS: Final = 20_000
#: How the field begins that holds the time at which the counting began, in ms.
SINCE: Final = "since"
#: What the name of a field says where a bucket has its edge: above all edges, and the sum.
_BEYOND, _SUM = "inf", "ms"
#: How the field begins that counts what was spent; then come what, the agent, and the model.
_SPENT: Final = "spent"


def counted_as(event: AnyEvent) -> str:
    """Return as what an event is counted: its type, and why it happened, or for which kind of callback."""
    if event.type.startswith("callback."):
        return f"{event.type}/{event.id.split(':')[1]}"
    why = _WHY.get(event.type)
    return f"{event.type}/{getattr(event.data, why)}" if why else event.type


def count(counts: Counter[str], event: AnyEvent, took: float | None = None) -> None:
    """Count an event as the pen does.

    Args:
        counts: the fields.
        event: the event.
        took: if the event ends something, how many seconds that took.
    """
    what, agent = counted_as(event), event.agent or ""
    if took is not None:
        ms = max(0, round(took * 1000))
        counts[f"{what}:{_SUM} {agent}"] += ms
        place = bisect_left(EDGES, ms)
        what += f":{EDGES[place]}" if place < len(EDGES) else f":{_BEYOND}"
    counts[f"{what} {agent}"] += 1


def count_spent(counts: Counter[str], agent: str, model: str, amount: Usage) -> None:
    """Count what an agent has spent with a model; a new one shares a field once there are too many."""
    for name, number in zip(SPENT, amount.counts, strict=True):
        if number:
            field = f"{_SPENT} {name} {agent} "
            too_many = field + model not in counts and len(counts) >= MOST_FIELDS
            counts[field + ("other" if too_many else model)] += number


class Spender(NamedTuple):
    """An agent, with the model that it has asked; an empty name if it has not said which."""

    agent: str
    model: str


class Counted(NamedTuple):
    """What is counted together."""

    type: str
    #: Why, or for which kind of callback; empty for events that do not say.
    detail: str
    agent: str


@dataclass
class Histogram:
    """How long things took."""

    #: How many there are in each bucket; the last one has no upper edge.
    buckets: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    #: All of them together, in seconds.
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def add(self, edge: str, number: int) -> None:
        """Take what a field says about a bucket, or about the sum."""
        if edge == _SUM:
            self.seconds += number / 1000
        else:
            self.buckets[len(EDGES) if edge == _BEYOND else bisect_left(EDGES, int(edge))] += number

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield each upper edge in seconds, the last is infinite, and how many took no longer."""
        yield from zip(
            [edge / 1000 for edge in EDGES] + [float("inf")], accumulate(self.buckets), strict=True
        )

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which about this share of them ended; None: there were none.

        As Prometheus does, it takes them to be spread evenly within a bucket.
        """
        wanted, below, lower = share * self.count, 0, 0.0
        for edge, so_far in self.cumulative():
            if so_far >= wanted and so_far > below:
                return (
                    lower
                    if edge == float("inf")
                    else lower + (edge - lower) * (wanted - below) / (so_far - below)
                )
            below, lower = so_far, edge
        return None


@dataclass(frozen=True)
class Metrics:
    """The counts, and how the tasks stand at the moment."""

    counts: Mapping[Counted, int]
    #: By agent: from the dispatch of a task to the start of its first attempt.
    waits: Mapping[str, Histogram]
    #: By agent: from the start of an attempt to its end, whatever that was.
    runs: Mapping[str, Histogram]
    #: What was spent, also by attempts that failed or were lost.
    spent: Mapping[Spender, Usage]
    #: How many tasks have not ended, by status.
    open: Mapping[str, int]
    #: Seconds since the dispatch of the oldest that waits for its first attempt; None: none does.
    oldest: float | None
    #: When the counting began, in Unix seconds; None: no worker was there yet.
    since: float | None

    def total(self, *types: str, agent: str | None = None) -> int:
        """Return how many events there were of these types, of one agent or of all."""
        return sum(
            number
            for each, number in self.counts.items()
            if each.type in types and agent in (None, each.agent)
        )


def metrics(fields: Mapping[str, int], *, open: Mapping[str, int], oldest: float | None) -> Metrics:
    """Return what the fields say that `count` and `count_spent` have written, together with the rest."""
    fold = _Fold()
    for name, number in fields.items():
        what, _, rest = name.partition(" ")
        if what == _SPENT:
            fold.take_spent(rest, number)
        elif what.startswith(SINCE):
            fold.since = number / 1000
        else:
            fold.take_event(what, rest, number)
    spent = {spender: Usage.of(tuple(counts)) for spender, counts in fold.spent.items()}
    return Metrics(fold.counts, fold.waits, fold.runs, spent, open, oldest, fold.since)


class _Fold:
    """The fields that were looked at, added up."""

    def __init__(self) -> None:
        self.counts: Counter[Counted] = Counter()
        self.waits: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.runs: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.spent: defaultdict[Spender, list[int]] = defaultdict(lambda: [0] * len(SPENT))
        self.since: float | None = None

    def take_event(self, what: str, agent: str, number: int) -> None:
        event, _, edge = what.partition(":")
        type_, _, detail = event.partition("/")
        if edge:
            times = self.waits if type_ == "task.started" else self.runs
            times[agent].add(edge, number)
        if edge != _SUM:
            self.counts[Counted(type_, detail, agent)] += number

    def take_spent(self, rest: str, number: int) -> None:
        what, agent, model = rest.split(" ", 2)
        self.spent[Spender(agent, model)][SPENT.index(what)] += number


class Measured(Protocol):
    """A store that counts."""

    async def metrics(self) -> Metrics:
        """Return what was counted, and how the tasks stand."""
        ...
