"""`up` from nothing to ready and back."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from hermes_async.adapters.embedded_redis import running_url
from tests.support.rabbitmq import reachable_rabbitmq
from tests.support.servers import ROOT, Process, free_port, wait_until
from tests.unit.cli.conftest import HERMES, Cli


@pytest.fixture
def up(project: Path, spawn: Callable[..., Process], request: pytest.FixtureRequest) -> Iterator[Process]:
    """A running `up` with an embedded Redis; a parameter may be further options and variables."""
    options, more = getattr(request, "param", ((), {}))
    env = {"HERMES_CONFIG": str(project / "agents.yaml"), **more}
    process = spawn([*HERMES, "up", "--port", "0", *options], env)
    process.wait_for_log("ready after")
    yield process
    if url := running_url(project / ".hermes" / "redis"):  # only after a test that failed
        with redis.Redis.from_url(url) as server:
            server.shutdown(nosave=True)


def family(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_up_runs_tasks_brings_back_what_dies_and_stops_all(project: Path, up: Process, cli: Cli) -> None:
    assert "research_agent (async), slow_agent (process)" in up.log
    assert "callbacks 1 worker, 0 functions" in up.log
    assert cli("invoke", "subagent", "research", "--parent", "parent_agent", "--input", "0").code == 0
    assert cli("task", "create", "parent_agent", "slow", "--input", "0").code == 0
    task_id = cli("task", "create", "parent_agent", "slow", "--input", "0", "--async").out.strip()
    assert cli("task", "watch", task_id, "--follow").code == 0  # it finds the relay, on whichever port it is
    os.kill(int((project / ".hermes/redis/redis.pid").read_text()), signal.SIGKILL)
    victims = [child for child in family(up) if {"relay", "callbacks"} & set(child.cmdline())]
    assert len(victims) == 2
    for victim in victims:
        victim.kill()
    up.wait_for_log("callbacks | is ready again")
    up.wait_for_log("relay     | is ready again")  # it, or `up`, has brought Redis back
    assert cli("invoke", "subagent", "research", "--parent", "parent_agent", "--input", "0").code == 0
    children = family(up)
    assert "CPendingDeprecationWarning" not in up.log  # Celery's, of what becomes of late acknowledgements
    up.signal(signal.SIGTERM)
    assert up.wait() == 0
    assert up.log.endswith("stopped\n")
    assert not any(child.is_running() for child in children)
    assert running_url(project / ".hermes" / "redis") is None


def test_up_and_doctor_say_that_a_change_has_no_effect_yet(project: Path, up: Process, cli: Cli) -> None:
    assert "has changed" not in cli("doctor").out
    file, new = project / "agents.yaml", project / "new.yaml"
    new.write_text(file.read_text() + '  third_agent: {run: "examples.basics:echo"}\n')
    later = time.time() + 10
    os.utime(new, (later, later))  # workers know to the second for how long they run
    new.replace(file)
    up.wait_for_log(f"{file} has changed since this began; stop it and start it again\n")
    assert cli("invoke", "subagent", "third_agent", "--input", "x").code != 0
    up.wait_for_log("the worker does not know the agent 'third_agent'; start all workers")
    rows = [line.split("\t") for line in cli("doctor").out.splitlines()]
    assert ["gate", "warning", "no worker knows third_agent: start the workers again"] in rows
    warned = [row[2] for row in rows if row[:2] == ["workers", "warning"]]
    assert len(warned) == 2  # one of each lane
    assert all("agents.yaml has changed since " in text for text in warned)
    assert up.log.count("has changed since this") == 1
    up.signal(signal.SIGTERM)
    assert up.wait() == 0


@pytest.mark.parametrize("up", [(["--trace"], {"HERMES_LOG_FORMAT": "json"})], indirect=True)
def test_up_with_trace_draws_a_task_once_it_has_ended(project: Path, up: Process, cli: Cli) -> None:
    said = cli("invoke", "subagent", "slow", "--parent", "parent_agent", "--input", "0", "--json")
    task = json.loads(said.out)
    up.wait_for_log(f"task {task['id']} completed, trace {task['trace_id']}")
    up.wait_for_log("invoke_agent slow_agent")
    rows = [line.split("\t")[0] for line in cli("task", "trace", task["id"]).out.splitlines()]
    assert rows == [
        "send slow_agent",
        "  wait slow_agent",
        "  process slow_agent #1",
        "    invoke_agent slow_agent",
    ]
    assert "OTEL_" not in up.log
    up.signal(signal.SIGTERM)
    assert up.wait() == 0


@pytest.mark.skipif(not Path("/proc").exists(), reason="the kernel's help is Linux'")
def test_up_that_is_killed_leaves_nobody(project: Path, up: Process) -> None:
    children = family(up)
    up.signal(signal.SIGKILL)
    up.wait()
    wait_until(lambda: not any(child.is_running() for child in children))
    wait_until(lambda: running_url(project / ".hermes" / "redis") is None)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def bad(result): ...\n", "callback 'bad': too many positional arguments; a callback is a function"),
        (
            "import nomod\n\ndef bad(result, context): ...\n",
            "c.py:1: cannot be loaded: No module named 'nomod'",
        ),
    ],
)
def test_a_callback_that_cannot_be_loaded_is_told_by_check_and_by_up_at_once(
    project: Path, cli: Cli, code: str, fault: str
) -> None:
    (project / "hermes_callbacks").mkdir()
    (project / "hermes_callbacks" / "c.py").write_text(code)
    checked = cli("agents", "check")
    assert checked.code == 1
    assert fault in checked.err
    [told] = json.loads(cli("agents", "check", "--json").out)["problems"]
    assert checked.err == f"hermes-async: {told}\n"
    said = cli("up", "--port", "0")
    assert (said.code, said.err) == (2, checked.err)
    assert said.out == "starting ...\n"
    assert running_url(project / ".hermes" / "redis") is None


def test_a_celeryconfig_that_cannot_be_imported_ends_up_at_once(
    online: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (online / "celeryconfig.py").write_text("1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", f"{online}{os.pathsep}{ROOT}")
    said = cli("up", "--port", "0")
    assert (said.code, said.out) == (2, "starting ...\n")
    [sentence] = said.err.splitlines()
    assert (
        "celeryconfig.py cannot be imported: celeryconfig.py:1: ZeroDivisionError: division by zero"
        in sentence
    )


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "closed"])
def test_a_broker_that_does_not_let_us_in_is_told_before_anything_starts(
    online: Path, redis_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    url = reachable_rabbitmq() if refuses else f"amqp://127.0.0.1:{free_port()}//"
    url = url.replace("guest:guest", "guest:wrong")
    monkeypatch.setenv("HERMES_TASK_QUEUE", url)
    monkeypatch.setenv("HERMES_STATE", redis_url)
    said = cli("up", "--port", "0")
    assert (said.code, said.out) == (69, "")
    [sentence] = said.err.splitlines()
    assert sentence.startswith("hermes-async: the broker at amqp://")
    assert ("ACCESS_REFUSED" if refuses else "refused") in sentence
    doctor = cli("doctor")
    assert doctor.code == 1
    told = sentence.removeprefix("hermes-async: ")
    assert f"broker\tbroken\t{told}\n" in doctor.out


def test_a_worker_waits_without_a_traceback_for_a_broker_that_refuses_it(
    online: Path, redis_url: str, spawn: Callable[..., Process]
) -> None:
    broker = reachable_rabbitmq().replace("guest:guest", "guest:wrong")
    env = {
        "HERMES_CONFIG": str(online / "agents.yaml"),
        "HERMES_TASK_QUEUE": broker,
        "HERMES_STATE": redis_url,
    }
    worker = spawn([*HERMES, "worker", "--lane", "async"], env)
    wait_until(lambda: worker.log.count("ACCESS_REFUSED") == 2)
    assert "Traceback" not in worker.log
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_port_that_is_taken_is_told_before_anything_starts(project: Path, cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = cli("up", "--port", str(port))
    assert said.code == 69
    assert said.err == (
        f"hermes-async: the relay cannot listen on 127.0.0.1:{port} (Address already in use); "
        "stop what does, or choose another with --port\n"
    )
