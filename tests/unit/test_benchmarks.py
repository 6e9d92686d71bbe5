"""`bin/bench` runs and says what it promises; how fast this machine is just now is no matter of a test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from benchmarks import report
from benchmarks.__main__ import FIGURES
from benchmarks.fairness import overlap
from benchmarks.figure import Goal, Line, Row, Spread
from benchmarks.stamps import Stamp
from tests.support.servers import ROOT, needed, redis_binary

COMMAND = [sys.executable, "-m", "benchmarks"]
#: What a terminal of a developer shows without a line break.
WIDTH = 130


@pytest.fixture(autouse=True, scope="module")
def server() -> None:
    needed(redis_binary())


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )


@pytest.fixture(scope="module")
def result() -> Any:
    done = bench("--quick", "--json", "dispatch", "batch")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_tells_where_and_how_it_measured(result: Any) -> None:
    assert set(result) == {"machine", "runs", "quick", "stock", "wall_seconds", "figures"}
    machine = {"cores", "python", "redis", "load", "load_after", "stolen_percent"}
    assert set(result["machine"]) == machine
    assert (result["runs"], result["quick"], result["stock"]) == (1, True, False)


def test_each_figure_has_both_sides_and_a_verdict(result: Any) -> None:
    assert [row["key"] for row in result["figures"]] == ["p50", "p99", "rate", "pipelined"]
    for row in result["figures"]:
        assert set(row) == {
            *("figure", "key", "label", "unit", "hermes", "plain", "ratio"),
            *("goal", "met", "stretch_met"),
        }
        for side in ("hermes", "plain"):
            spread = row[side]
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
        assert row["ratio"] == pytest.approx(row["hermes"]["median"] / row["plain"]["median"])
        assert (row["met"] is None) == (row["goal"] is None)


def test_an_interrupt_ends_every_process_also_those_that_are_paused() -> None:
    with subprocess.Popen(
        [*COMMAND, "--quick", "--runs", "1000", "drain"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert any("run 2 of" in line for line in running.stderr)
        others = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    assert len(others) >= 4  # Redis, two workers of ours, one of Celery's
    _, alive = psutil.wait_procs(others, timeout=5)
    assert alive == []


def test_an_unknown_figure_is_refused_with_the_names_of_all() -> None:
    done = bench("spped")
    assert done.returncode == 2
    assert "no figure spped" in done.stderr
    assert ", ".join(FIGURES) in done.stderr


def lines() -> Iterator[tuple[str, Line]]:
    """Yield every row with numbers as long as they get."""
    spread = Spread(0.0548, 0.0498, 0.0558)
    for name, figure in FIGURES.items():
        for row in figure.rows:
            yield name, Line(row, spread, spread)


def test_the_table_fits_on_a_terminal() -> None:
    table = report.as_table({f"{name} {line.row.key}": [line] for name, line in lines()})
    assert max(map(len, table.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("goal", "ours", "verdicts"),
    [
        (Goal("≤", 0.6, 0.3, of="ratio"), 1.2, (True, False)),
        (Goal("≤", 0.6, 0.3, of="ratio"), 0.6, (True, True)),
        (Goal("≥", 5, 10, of="ratio"), 16, (True, False)),
        (Goal("≥", 5, 10, of="ratio"), 9.9, (False, False)),
        (Goal("<", 2), 2, (False, None)),
        (Goal("=", 0), 0, (True, None)),
    ],
)
def test_a_goal_and_its_stretch_are_judged_apart(
    goal: Goal, ours: float, verdicts: tuple[bool, bool | None]
) -> None:
    line = Line(Row("key", "label", "s", goal), Spread(ours, ours, ours), Spread(2, 2, 2))
    assert (line.met, line.stretch_met) == verdicts


def test_a_ratio_without_a_counterpart_is_not_judged() -> None:
    row = Row("key", "label", "s", Goal("≤", 0.6, 0.3, of="ratio"))
    line = Line(row, Spread(1, 1, 1), None)
    assert (line.met, line.stretch_met) == (None, None)


def test_who_ends_at_the_moment_another_begins_does_not_run_with_it() -> None:
    assert overlap([Stamp(0, 2), Stamp(1, 3), Stamp(2, 4), Stamp(5, 6)]) == 2
