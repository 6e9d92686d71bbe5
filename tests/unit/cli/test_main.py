"""What every command has in common: global options, errors in one sentence, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hermes_async import __version__
from hermes_async.cli import tasks
from hermes_async.cli.main import COMMANDS
from hermes_async.domain.errors import HermesError
from tests.unit.cli.conftest import HERMES, Cli


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"hermes-async {__version__}\n"


#: `hermes-async --version`, with Ctrl-C when all is said and the process is about to end.
LATE = """
import atexit, os, signal, sys
from hermes_async.cli.main import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["hermes-async", "--version"]
main()
"""


def test_ctrl_c_after_the_end_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli: Cli, name: str) -> None:
    said = cli(name, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: hermes-async {name}")


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from hermes_async.cli.main import run; run(['--help'])\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('celery', 'kombu', 'redis', 'rich')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("tsk", "no command 'tsk'; did you mean 'task'? (see `hermes-async --help`)"),
        ("task lst", "no command 'lst'; did you mean 'list'? (see `hermes-async task --help`)"),
        ("list", "did you mean `task list`, `session list`, `agents list`, `tools list`, `callbacks list`?"),
        ("events t00-1", "no command 'events'; did you mean `task events`?"),
        ("invoke slow", "no command 'slow'; did you mean `invoke subagent slow`?"),
        ("invoke subagnet slow", "no command 'subagnet'; did you mean 'subagent'?"),
        ("task list --limit x", "'x' is not a valid integer"),
        ("task list --nonsense", "no such option"),
        ("worker --lane async --concurrency 5-2", "'5-2' is neither a number from 1 on"),
        ("worker --lane async --concurrency 0", "'0' is neither a number from 1 on"),
        ("token", "name the sessions with --session, or say --all"),
    ],
)
def test_wrong_usage_is_one_sentence(project: Path, cli: Cli, line: str, sentence: str) -> None:
    said = cli(*line.split())
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.startswith("hermes-async: ")
    assert said.err.count("\n") == 1


def test_wrong_usage_in_json(cli: Cli) -> None:
    said = cli("task", "list", "--nonsense", "--json")
    assert (said.code, said.err) == (2, "")
    assert json.loads(said.out)["error"]["type"] == "NoSuchOption"


def test_a_missing_config_is_one_sentence_wherever_the_option_stands(project: Path, cli: Cli) -> None:
    for line in (("--config", "none.yaml", "agents", "list"), ("agents", "list", "--config", "none.yaml")):
        said = cli(*line)
        assert said.code == 2
        assert said.err.startswith("hermes-async: none.yaml: there is no such file")


def test_redis_down_is_told_within_three_seconds(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_TASK_QUEUE", "redis://127.0.0.1:1/0")
    began = time.monotonic()
    said = cli("task", "list")
    assert time.monotonic() - began < 3
    assert (said.code, said.out) == (69, "")
    assert said.err.startswith("hermes-async: Redis at redis://127.0.0.1:1/0 does not work")
    assert said.err.count("\n") == 1
    assert json.loads(cli("task", "list", "--json").out)["error"]["type"] == "StoreUnavailable"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (HermesError("oh"), 70, "hermes-async: oh\n"),
        (ValueError("oh"), 70, "hermes-async: unexpected ValueError: oh (-v shows where)\n"),
        (ExceptionGroup("many", [HermesError("oh")]), 70, "hermes-async: oh\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_have_codes_and_no_traceback(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, told: str
) -> None:
    def fail(shell: object) -> None:
        raise error

    monkeypatch.setattr(tasks, "settings_of", fail)
    said = cli("task", "list")
    assert said.code == code
    assert said.err.lstrip("\n") == told
    if isinstance(error, ValueError):
        assert "Traceback" in cli("task", "list", "-v").err


def test_a_reader_that_leaves_is_no_error(project: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run([*HERMES, "agents", "schema"], stdout=writable, stderr=subprocess.PIPE, text=True)
    os.close(writable)
    assert (done.returncode, done.stderr) == (141, "")
