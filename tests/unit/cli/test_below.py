"""A command that is given in a folder below the project's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli

HINT = "no agents.yaml here; ../../agents.yaml is one: cd there, or say --config ../../agents.yaml\n"


@pytest.fixture
def below(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, two below that of agents.yaml."""
    folder = project / "src" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HERMES_MODULES", raising=False)
    return folder


def test_who_looks_from_below_is_told_where_the_project_is(below: Path, cli: Cli) -> None:
    said = cli("agents", "list")
    assert (said.code, said.out, said.err) == (0, "", f"hermes-async: {HINT}")
    assert cli("agents", "list", "--json").out == "[]\n"
    assert "parent_agent" in cli("agents", "list", "--config", "../../agents.yaml").out


@pytest.mark.parametrize("command", [("up",), ("chat", "parent_agent", "--message", "x")])
def test_no_second_project_is_begun_below(below: Path, cli: Cli, command: tuple[str, ...]) -> None:
    said = cli(*command)
    assert (said.code, said.out, said.err) == (2, "", f"hermes-async: {HINT}")
    assert [*below.iterdir()] == []


def test_who_has_said_what_is_meant_is_told_nothing(
    below: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_MODULES", "examples.basics")
    said = cli("agents", "list")
    assert ("wait" in said.out, said.err) == (True, "")
    monkeypatch.setenv("HERMES_MODULES", "")
    monkeypatch.setenv("HERMES_CONFIG", "../../agents.yaml")
    said = cli("agents", "list")
    assert ("parent_agent" in said.out, said.err) == (True, "")


def test_nobody_looks_above_the_home_folder(below: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(below.parent))
    assert cli("agents", "list").err == ""
    monkeypatch.setenv("HOME", str(below.parent.parent))
    assert cli("agents", "list").err == f"hermes-async: {HINT}"
