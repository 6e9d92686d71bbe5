"""Everything as a user meets it: `hermes-async up`, driven by the command line and a Socket.IO client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from hermes_async.adapters.embedded_redis import running_url
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.relay.client import RelayClient
from tests.support.servers import ROOT, Process, free_port, wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

AGENTS = """
version: "2.4"
agents:
  parent_agent:
    type: conversational
    subagents: [{id: wait, agent: wait}, {id: burn, agent: burn}, {id: echo, agent: echo}, {id: research}]
  wait: {run: "examples.basics:wait"}
  burn: {run: "examples.basics:burn"}
  echo: {run: "examples.basics:echo"}
  fail: {run: "examples.basics:fail"}
  research_agent: {run: "examples.research:research"}
"""


class Project:
    """A user's folder with its own state, and the command line in it."""

    def __init__(self, folder: Path, spawn: Callable[..., Process]) -> None:
        (folder / "agents.yaml").write_text(AGENTS)
        self.folder = folder
        self.relay_port = free_port()
        self._spawn = spawn
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HERMES_")}
        self.env = {
            **clean,
            "PYTHONPATH": str(ROOT),
            "HERMES_CONFIG": str(folder / "agents.yaml"),
            "HERMES_LEASE": "2",
            "HERMES_RELAY__PORT": str(self.relay_port),
        }

    def up(self) -> Process:
        """Start everything and wait until it says so."""
        process = self._spawn([sys.executable, "-m", "hermes_async.cli", "up"], env=self.env, name="up")
        process.wait_for_log("Ctrl-C", timeout=40)
        return process

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        line = [sys.executable, "-m", "hermes_async.cli", *args]
        done = subprocess.run(line, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *args: str) -> Any:
        """Run one command and return what it says."""
        return json.loads(self.run(*args, "--json", check=False).stdout)

    def create(self, subagent: str, text: str, session: str) -> str:
        """Dispatch a task asynchronously and return its id."""
        line = ("task", "create", "parent_agent", subagent, "--input", text, "--async", "--session", session)
        return str(self.json(*line)["task_id"])


@pytest.fixture
def project(tmp_path: Path, spawn: Callable[..., Process]) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    yield Project(folder, spawn)
    if url := running_url(folder / ".hermes" / "redis"):  # only after a test that failed
        with redis.Redis.from_url(url) as server:
            server.shutdown(nosave=True)


def children(up: Process, what: str) -> list[psutil.Process]:
    """The living processes under `up` whose command line has these words."""
    return [
        child
        for child in psutil.Process(up.pid).children(recursive=True)
        if all(word in child.cmdline() for word in what.split()) and child.status() != psutil.STATUS_ZOMBIE
    ]


def stop(up: Process) -> None:
    """Ctrl-C, and nothing is left."""
    tree = psutil.Process(up.pid).children(recursive=True)
    up.signal(signal.SIGINT)
    assert up.wait(30) == 0, up.log
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert not alive, alive


def test_the_article_s_three_lines(project: Project) -> None:
    up = project.up()
    question = "How does Celery acknowledge messages late?"
    created = project.run("task", "create", "parent_agent", "research", "--input", question, "--async")
    task_id = next(word for word in created.stdout.split() if word.startswith("t") and "-" in word)
    watched = project.run("task", "watch", task_id, "--follow")
    assert "completed" in watched.stdout
    assert "acks_late" in project.run("task", "result", task_id).stdout

    endless = project.create("wait", "60", "cancelled")
    wait_until(lambda: project.json("task", "status", endless)["status"] == "running", timeout=20)
    assert project.run("task", "cancel", endless, "--force").returncode == 0
    assert project.run("task", "watch", endless, "--follow", check=False).returncode == 3
    assert project.json("task", "status", endless)["status"] == "cancelled"
    stop(up)


def test_a_killed_worker_and_a_killed_relay_lose_nothing(project: Project) -> None:
    """Twelve tasks, both workers and the relay killed in the middle: each result is heard exactly once."""
    up = project.up()
    token = project.run("token", "--session", "chat").stdout.strip()
    tasks = {project.create("wait", "3", "chat") for _ in range(8)}
    tasks |= {project.create("burn", "2", "chat") for _ in range(4)}

    heard = asyncio.run(_hear_it_all(project, up, token, tasks))

    assert [event.seq for event in heard] == list(range(1, len(heard) + 1))
    ends = Counter(event.task_id for event in heard if event.type in TERMINAL_TYPES)
    assert ends == Counter(tasks)
    assert {event.type for event in heard if event.type in TERMINAL_TYPES} == {"task.completed"}
    assert any(event.type == "task.attempt_lost" for event in heard)
    assert "again" in up.log  # the supervisor says that it has started something again
    stop(up)


async def _hear_it_all(project: Project, up: Process, token: str, tasks: set[str]) -> list[Any]:
    heard: list[Any] = []
    waiting, killed = set(tasks), False
    async with RelayClient(f"http://127.0.0.1:{project.relay_port}", token) as client:
        async for event in client.follow(session="chat"):
            assert not isinstance(event, Gap)
            heard.append(event)
            if event.type == "task.progress" and not killed:
                killed = True
                _kill_everything_but_redis(up)
            if event.type in TERMINAL_TYPES:
                waiting.discard(event.task_id)
            if not waiting:
                return heard
    raise AssertionError("the stream ended by itself")


def _kill_everything_but_redis(up: Process) -> None:
    victims = [*children(up, "hermes.async"), *children(up, "hermes.process"), *children(up, "relay")]
    assert len(victims) >= 3
    for victim in victims:
        victim.kill()


def test_tasks_survive_a_restart_of_everything(project: Project) -> None:
    before = project.create("echo", "written down before anything ran", "chat")  # no worker, no server yet
    assert project.json("task", "status", before)["status"] == "queued"
    up = project.up()
    assert project.run("task", "watch", before, "--follow").returncode == 0
    stop(up)
    assert project.json("task", "result", before)["output"] == "written down before anything ran"


def test_exit_codes_tell_the_fate(project: Project) -> None:
    up = project.up()
    failed = project.json("task", "create", "-", "fail", "--input", "boom", "--async")["task_id"]
    assert project.run("task", "watch", failed, "--follow", check=False).returncode == 1
    result = project.run("task", "result", failed, check=False)
    assert result.returncode == 1
    assert "boom" in result.stderr
    invoked = project.run("invoke", "subagent", "echo", "--input", "hello")
    assert invoked.stdout.strip() == "hello"
    stop(up)
