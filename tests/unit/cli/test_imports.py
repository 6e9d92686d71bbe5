"""A user's module that prints, fails, ends or hangs when it is imported."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import PATIENCE
from tests.unit.cli.conftest import HERMES, Cli

AGENT = "def run(ctx):\n    return 1\n"


@pytest.fixture
def module(project: Path) -> Path:
    """The module of the project's only agent."""
    Path("agents.yaml").write_text("agents: {a: {run: 'told_module:run'}}")
    return project / "told_module.py"


def command(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HERMES, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def test_what_a_module_prints_is_not_the_output(module: Path) -> None:
    program = "import os\nprint('from print')\nos.system('echo from a program')\n"
    module.write_text(program + AGENT)
    out, err = command("agents", "check", "--json").communicate(timeout=PATIENCE)
    assert json.loads(out)["ok"] is True
    assert sorted(err.splitlines()) == ["from a program", "from print"]


def test_what_a_command_prints_after_an_import_is_its_output(module: Path, cli: Cli) -> None:
    module.write_text("print('from print')\n" + AGENT)
    said = cli("agents", "check")
    assert (said.code, said.out) == (0, "ok    a: told_module:run, process lane\n")


@pytest.mark.parametrize("words", [("agents", "check"), ("up",), ("invoke", "subagent", "a")])
def test_a_module_that_ends_is_told_of(module: Path, words: tuple[str, ...]) -> None:
    module.write_text("import sys\nsys.exit(4)\n")
    with command(*words) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (1 if words == ("agents", "check") else 2)
    assert (out, err.splitlines()[-1]) == (
        "",
        "hermes-async: agent 'a': cannot import 'told_module': told_module.py:2: SystemExit: 4",
    )


@pytest.mark.parametrize(
    "words", [("agents", "check", "-v"), ("up", "-v"), ("invoke", "subagent", "a", "-v")]
)
def test_the_whole_traceback_is_shown_to_who_asks(module: Path, words: tuple[str, ...]) -> None:
    module.write_text("def deep():\n    raise RuntimeError('at import')\n\n\ndeep()\n")
    out, err = command(*words).communicate(timeout=PATIENCE)
    assert out == ""
    assert 'told_module.py", line 5, in <module>' in err
    assert "cannot import 'told_module': told_module.py:2: RuntimeError: at import" in err


def test_an_import_that_takes_long_is_told_of(module: Path) -> None:
    module.write_text("import os, time\nwhile not os.path.exists('go_on'):\n    time.sleep(0.01)\n" + AGENT)
    with command("agents", "check") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "hermes-async: importing told_module ...\n"
        Path("go_on").touch()
        assert process.communicate(timeout=PATIENCE) == ("ok    a: told_module:run, process lane\n", "")
