"""The units and the containers of the examples start what there is, and stop it as it wants to be stopped."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from hermes_async.cli.main import hermes_async
from tests.support.servers import ROOT

FOLDER = ROOT / "examples/deploying"
UNITS = sorted(FOLDER.glob("*.service"))
SERVICES = {
    name: its
    for name, its in yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"].items()
    if name != "redis"
}


def unit(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser["Service"]


def parsed(words: list[str]) -> dict[str, object]:
    """What a command line says, without running it."""
    with hermes_async.make_context("hermes-async", [*words]) as context:
        command = hermes_async.get_command(context, words[0])
        assert isinstance(command, click.Command)
        with command.make_context(words[0], words[1:], parent=context) as inner:
            return dict(inner.params)


def grace(words: list[str]) -> float:
    return float(str(parsed(words).get("grace") or 0))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_and_waits_longer_than_its_grace(path: Path) -> None:
    service = unit(path)
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "hermes-async"
    assert float(service["TimeoutStopSec"]) >= grace(words) + 10
    assert (service["KillMode"], service["Restart"], service["RestartPreventExitStatus"]) == (
        "mixed",
        "always",
        "2",
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_starts_the_command_of_a_unit(name: str) -> None:
    words = shlex.split(SERVICES[name]["command"])
    assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= grace(words) + 10
    units = [parsed(shlex.split(unit(path)["ExecStart"])[1:]) for path in UNITS]
    assert {**parsed(words), "host": None} in [{**each, "host": None} for each in units]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for path in (*UNITS, FOLDER / "hermes.target"):
        text = path.read_text().replace("/srv/agents/.venv/bin/hermes-async", "/bin/true")
        (tmp_path / path.name).write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        env={"SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert str(tmp_path) not in said.stderr + said.stdout, said.stderr
    assert said.returncode == 0, said.stderr
