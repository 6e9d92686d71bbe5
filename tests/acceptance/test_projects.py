"""Two projects on one server keep apart; two versions of one project work together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.rabbitmq import running_rabbitmq
from tests.support.servers import ROOT, Process, wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

CLI = [sys.executable, "-m", "hermes_async.cli"]
CODE = """
async def brew(ctx, text):
    return "{name} has brewed " + text

async def pour(ctx, text):
    return "{name} has poured " + text
"""


class Project:
    """A folder with agents, and the command line in it."""

    def __init__(
        self,
        folder: Path,
        namespace: str | None,
        servers: dict[str, str],
        spawn: Any,
        agents: Sequence[str] = ("brew",),
    ) -> None:
        folder.mkdir()
        said = f"namespace: {namespace}\n" if namespace else ""
        runs = "".join(f'  {name}: {{run: "kitchen:{name}"}}\n' for name in agents)
        (folder / "agents.yaml").write_text(f"{said}agents:\n{runs}")
        (folder / "kitchen.py").write_text(CODE.format(name=folder.name))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HERMES_")}
        config = str(folder / "agents.yaml")
        self.env = {**clean, **servers, "PYTHONPATH": str(ROOT), "HERMES_CONFIG": config}
        self._spawn = spawn

    def worker(self) -> Process:
        """Start a worker and wait until it takes tasks."""
        process: Process = self._spawn([*CLI, "worker", "--lane", "async"], self.env, "worker")
        process.wait_for_log(" ready.")
        return process

    def run(self, *args: str) -> str:
        """Run one command and return what it says."""
        done = subprocess.run([*CLI, *args], env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, agent: str) -> str:
        """Dispatch a task and return its id."""
        created = self.run("task", "create", "-", agent, "--input", "tea", "--async", "--json")
        return str(json.loads(created)["task_id"])

    def invoke(self) -> str:
        return self.run("invoke", "subagent", "brew", "--input", "tea").strip()

    def status(self, task_id: str) -> str:
        return str(json.loads(self.run("task", "status", task_id, "--json"))["status"])

    def workers(self) -> list[str]:
        """The names of the workers that answer."""
        checks = json.loads(self.run("doctor", "--json"))["checks"]
        (found,) = (check["detail"] for check in checks if check["check"] == "workers")
        return str(found).split(", ")


@pytest.fixture(params=["redis", "rabbitmq"])
def servers(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the environment says of the servers."""
    if request.param == "redis":
        yield {"HERMES_TASK_QUEUE": redis_url}
        return
    for rabbit in running_rabbitmq(tmp_path / "rabbitmq"):
        yield {"HERMES_TASK_QUEUE": rabbit.url, "HERMES_STATE": redis_url}


def test_each_project_does_its_own_tasks(
    servers: dict[str, str], redis_url: str, tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    ours = Project(tmp_path / "ours", None, servers, spawn)
    theirs = Project(tmp_path / "theirs", "their_own-1", servers, spawn)
    ours.worker()
    task_id = theirs.create("brew")
    assert ours.invoke() == "ours has brewed tea"  # dispatched later: theirs would have been done before
    assert theirs.status(task_id) == "queued"

    theirs.worker()
    wait_until(lambda: theirs.status(task_id) == "completed")
    assert theirs.run("task", "result", task_id).strip() == "theirs has brewed tea"
    assert [ours.invoke(), theirs.invoke()] == ["ours has brewed tea", "theirs has brewed tea"]
    assert len(ours.workers()) == len(theirs.workers()) == 1
    assert ours.workers() != theirs.workers()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        first = {re.split(r"[.:]", key)[0] for key in client.scan_iter()}
    assert first - {"_kombu"} == {"hermes", "their_own-1"}


def test_a_worker_with_old_code_sends_on_what_only_newer_ones_know(
    servers: dict[str, str], tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    old = Project(tmp_path / "old", None, servers, spawn)
    new = Project(tmp_path / "new", None, servers, spawn, agents=["brew", "pour"])
    old_worker, new_worker = old.worker(), new.worker()
    wait_until(lambda: len(new.workers()) == 2)
    tasks = [new.create("pour")]
    while "goes on to another worker, which knows the agent 'pour'" not in old_worker.log:
        tasks.append(new.create("pour"))
    wait_until(lambda: {new.status(task_id) for task_id in tasks} == {"completed"})

    new_worker.signal(signal.SIGTERM)
    new_worker.wait()
    last = new.create("pour")
    old_worker.wait_for_log(f"task {last}: the worker does not know the agent 'pour'; start all workers")
    wait_until(lambda: f"{last}\tfailed" in new.run("task", "list"))
