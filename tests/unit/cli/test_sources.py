"""Which files a project runs from, and what is said when they change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_async.bootstrap import read_settings, registry
from hermes_async.cli.checks import stale
from hermes_async.cli.sources import Changes, changed, sources
from hermes_async.settings import Settings


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A project whose agent uses another module of its folder, with the agents loaded."""
    (tmp_path / "agents.yaml").write_text('agents: {brew: {run: "source_kitchen:brew"}}')
    (tmp_path / "source_kitchen.py").write_text("import source_water\n\ndef brew(ctx): ...\n")
    (tmp_path / "source_water.py").write_text("")
    (tmp_path / "unused.py").write_text("")
    (tmp_path / "hermes_callbacks").mkdir()
    (tmp_path / "hermes_callbacks" / "told.py").write_text("def told(task_result, parent_context): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings = read_settings()
    registry(settings).runnable()
    yield settings
    for name in ("source_kitchen", "source_water"):
        sys.modules.pop(name, None)


def test_the_file_the_agents_what_they_import_and_the_callbacks(kitchen: Settings) -> None:
    folder = kitchen.project_dir
    assert {str(file.absolute().relative_to(folder)) for file in sources(kitchen)} == {
        "agents.yaml",
        "source_kitchen.py",
        "source_water.py",
        "hermes_callbacks/told.py",
    }


def test_a_change_is_told_once_and_a_file_that_is_away_is_waited_for(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("")  # the second is still to come
    changes = Changes([first, second])
    assert changes.look() == []
    os.utime(first, (1, 1))
    assert [changes.look(), changes.look()] == [[first], []]
    first.unlink()
    assert changes.look() == []
    first.write_text("")
    second.write_text("")
    assert sorted(changes.look()) == [first, second]
    assert changes.look() == []


def test_what_has_changed_is_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = Path("/elsewhere/c.py")
    assert changed([tmp_path / "b.py"]) == "b.py has changed"
    assert (
        changed([tmp_path / "b.py", Path("a.yaml"), elsewhere])
        == "/elsewhere/c.py, a.yaml, b.py have changed"
    )


def test_doctor_knows_the_files_of_its_own_machine_only(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    here, there = (f"async@{host}" for host in (os.uname().nodename, "elsewhere.test"))
    long_ago = {"uptime": 3600}
    assert [finding.status for finding in stale(here, long_ago, [tmp_path / "a.py"])] == ["warning"]
    assert not list(stale(there, long_ago, [tmp_path / "a.py"]))
    os.utime(tmp_path / "a.py", (1, 1))
    assert not list(stale(here, long_ago, [tmp_path / "a.py"]))
