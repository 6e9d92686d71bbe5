"""A short run of the chaos that `bin/chaos` makes for as long as you like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.faults.chaos import run
from tests.acceptance.faults.nemesis import FAULTS, schedule

SECONDS = 20.0
SEEDS = [1]


def test_a_schedule_is_repeated_by_its_seed() -> None:
    assert schedule(7, 100.0) == schedule(7, 100.0) != schedule(8, 100.0)
    assert {name for step in schedule(7, 200.0) for name, _ in step.faults} == set(FAULTS)


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_in_chaos(tmp_path: Path, seed: int) -> None:
    report = run(tmp_path / "chaos", seed, SECONDS, print)
    assert not report.violations, "\n".join(text for _, text in report.violations)
    assert report.tasks["completed"] > 50
    assert sum(report.faults.values()) >= 5
