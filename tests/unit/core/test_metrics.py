"""Counting, and what the counts say."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from hermes_async.core.metrics import EDGES, OPEN, Counted, Histogram, count, count_spent, metrics
from hermes_async.domain.usage import Usage
from tests.support.values import DATA, make_event, make_task


def counted(*took: float, type_: str = "task.completed") -> Counter[str]:
    counts: Counter[str] = Counter()
    for each in took:
        count(counts, make_event(make_task(), type_), each)
    return counts


def of(counts: Counter[str]) -> Histogram:
    return metrics(counts, open={}, oldest=None).runs["echo"]


@pytest.mark.parametrize(
    ("seconds", "edge"),
    [(-1, "10"), (0, "10"), (0.01, "10"), (0.011, "25"), (60, "60000"), (3600, "3600000"), (3600.1, "inf")],
)
def test_a_time_on_an_edge_is_within_it(seconds: float, edge: str) -> None:
    counts = counted(seconds)
    assert counts.keys() == {f"task.completed:{edge} echo", "task.completed:ms echo"}
    assert counts["task.completed:ms echo"] == max(0, seconds * 1000)


def test_every_event_is_counted_under_a_name_that_is_read_again() -> None:
    for type_ in DATA:
        counts: Counter[str] = Counter()
        event = make_event(make_task(agent="a.b-c"), type_)
        count(counts, event.model_copy(update={"id": "t07-x:on_complete:1:failed"}))
        [(what, number)] = metrics(counts, open={}, oldest=None).counts.items()
        assert (what.type, what.agent, number) == (type_, "a.b-c", 1)


def test_an_event_without_an_agent_is_counted_too() -> None:
    counts: Counter[str] = Counter()
    event = make_event(make_task(), "session.message")
    count(counts, event.model_copy(update={"agent": None}))
    assert metrics(counts, open={}, oldest=None).counts == {Counted("session.message", "", ""): 1}


def test_buckets_are_read_as_they_were_written_and_add_up() -> None:
    times = [edge / 1000 for edge in EDGES] + [9999.0]
    found = of(counted(*times, *times))
    assert found.buckets == [2] * (len(EDGES) + 1)
    assert found.seconds == pytest.approx(2 * sum(times))
    edges, so_far = zip(*found.cumulative(), strict=True)
    assert edges == (*times[:-1], math.inf)
    assert so_far == tuple(range(2, 2 * len(times) + 1, 2))


def test_an_edge_of_another_version_is_counted_above_its_times() -> None:
    found = of(Counter({"task.completed:70 echo": 3, "task.completed:9999999 echo": 1}))
    assert dict(found.cumulative())[0.05] == 0
    assert dict(found.cumulative())[0.1] == 3
    assert found.buckets[-1] == 1


def test_all_ends_of_attempts_are_one_histogram_and_starts_are_another() -> None:
    counts = counted(1, 2) + counted(3, type_="task.retrying") + counted(4, type_="task.started")
    found = metrics(counts, open={}, oldest=None)
    assert (found.runs["echo"].count, found.runs["echo"].seconds) == (3, 6.0)
    assert (found.waits["echo"].count, found.waits["echo"].seconds) == (1, 4.0)
    assert found.total("task.completed", "task.retrying") == 3
    assert found.total("task.completed", agent="other") == 0


def test_what_was_spent_is_added_up_for_each_model() -> None:
    counts: Counter[str] = Counter()
    amount = Usage(requests=1, tool_calls=2, input_tokens=3, output_tokens=4, cost_usd=0.000_000_1)
    for model in ("llama3:8b", "gpt 4o", "", "llama3:8b"):
        count_spent(counts, "echo", model, amount)
    count_spent(counts, "spare", "gpt 4o", Usage())
    assert metrics(counts, open={}, oldest=None).spent == {
        ("echo", "llama3:8b"): amount + amount,
        ("echo", "gpt 4o"): amount,
        ("echo", ""): amount,
    }


def test_names_of_models_without_end_are_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_async.core.metrics.MOST_FIELDS", 3)
    counts: Counter[str] = Counter()
    for number in range(10):
        count_spent(counts, "echo", f"m{number % 5}", Usage(requests=1))
    spent = metrics(counts, open={}, oldest=None).spent
    assert {who.model: usage.requests for who, usage in spent.items()} == {
        "m0": 2,
        "m1": 2,
        "m2": 2,
        "other": 4,
    }


def test_quantiles_are_spread_within_their_bucket() -> None:
    found = of(counted(*[0.03] * 50, *[0.2] * 50))
    assert found.quantile(0.25) == pytest.approx(0.0375)
    assert found.quantile(0.5) == pytest.approx(0.05)
    assert found.quantile(0.75) == pytest.approx(0.175)
    assert found.quantile(1.0) == pytest.approx(0.25)
    assert of(counted(9999)).quantile(0.5) == 3600
    assert Histogram().quantile(0.5) is None


def test_the_statuses_that_are_told_are_those_that_do_not_end() -> None:
    assert not any(status.is_terminal for status in OPEN)
    assert metrics({"since: whatever": 5000}, open={}, oldest=None).since == 5.0
