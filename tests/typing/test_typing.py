"""Type checkers infer what a dispatch gives back, and find what would fail when it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[int, str]]]:
    """The line and code of every complaint of one run of mypy, by file."""
    cache = ROOT / ".mypy_cache"
    files = [str(FOLDER / name) for name in ("right.py", "wrong.py")]
    config = ["--config-file", str(ROOT / "setup.cfg"), "--cache-dir", str(cache), "--no-error-summary"]
    out, err, _ = api.run([*config, "--hide-error-context", *files])
    assert err == ""
    complaints: dict[str, set[tuple[int, str]]] = {"right.py": set(), "wrong.py": set()}
    for line in out.splitlines():
        if match := re.match(r".*?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", line):
            complaints.setdefault(match[1], set()).add((int(match[2]), match[3]))
    return complaints


@pytest.mark.timeout(120)
def test_what_is_right_is_accepted(found: dict[str, set[tuple[int, str]]]) -> None:
    assert found["right.py"] == set()
    assert found.keys() == {"right.py", "wrong.py"}


def test_what_is_wrong_is_found_on_its_line(found: dict[str, set[tuple[int, str]]]) -> None:
    lines = (FOLDER / "wrong.py").read_text().splitlines()
    expected = {
        (number, comment[1])
        for number, line in enumerate(lines, 1)
        if (comment := re.search(r"  # ([a-z-]+)$", line))
    }
    assert len(expected) > 10
    assert found["wrong.py"] == expected
