"""A project in a folder of its own over a private Redis, and the command line run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hermes_async.bootstrap import connect
from hermes_async.cli.main import run
from hermes_async.core.hermes import Hermes
from hermes_async.settings import Settings
from tests.support.servers import ROOT

AGENTS = """\
agents:
  parent_agent:
    type: conversational
    subagents:
      - id: research
      - id: slow
        async: false
  research_agent:
    run: "examples.basics:wait"
  slow_agent:
    run: "examples.basics:burn"
"""
HERMES = [sys.executable, "-m", "hermes_async.cli"]


@dataclass
class Said:
    """What a command has answered."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an agents.yaml; no server is configured."""
    (tmp_path / "agents.yaml").write_text(AGENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("HERMES_CONFIG", "HERMES_TOKEN", "HERMES_RELAY_URL", "HERMES_TASK_QUEUE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def online(project: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project over the private Redis."""
    monkeypatch.setenv("HERMES_TASK_QUEUE", redis_url)
    return project


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line in this process."""

    def call(*args: str) -> Said:
        capfd.readouterr()
        try:
            code = run(args)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return call


async def with_hermes(function: Callable[[Hermes], Any]) -> Any:
    """Call a coroutine function with a Hermes of the project in the current folder."""
    async with connect(Settings.read()) as hermes:
        return await function(hermes)
