"""Declared agents in real workers, with a model behind a real socket."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hermes_async import TaskFailed
from hermes_async.core.handle import TaskHandle
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.worker.command import worker_command
from tests.support.asking import ended, told
from tests.support.model import Reply, Request, ScriptedModel, call, hang, say, status
from tests.support.servers import ROOT, Process, RedisServer, free_port, wait_until, wait_until_async
from tests.support.site import RECOVERY, Site, gone, site_over

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]

ARTICLE = ROOT / "tests/corpus/article.yaml"
HANDLERS = """\
import os

def research_callback_handler(task_result, parent_context):
    parent_context["session"].send_message(f"Research: {task_result.output[:500]}")

def failure_notifier(task_result, parent_context):
    parent_context["session"].send_message(f"Failed: {task_result.error.message}")
"""
AGENTS = """\
agents:
  boss:
    type: conversational
    subagents:
      - {id: think, agent: thinker, timeout: 60, retry_limit: 1, retry: {initial: 0.05}}
      - {id: frugal, agent: thinker, limits: {total_tokens: 150}}
      - {id: lasting, agent: thinker, model: tiny, fallback: "openai:gpt-4o"}
      - {id: apart, agent: hermit}
  thinker: {model: gpt-4o-mini, instructions: Think., tools: ["tests.support.lookups:capital"]}
  hermit: {model: gpt-4o-mini, pool: process, tools: ["tests.support.lookups:population"]}
"""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """The model that every process of the test finds in its environment."""
    with ScriptedModel() as model:
        for name, value in model.env.items():
            monkeypatch.setenv(name, value)
        yield model


@pytest.fixture
async def thinking(
    redis_url: str, tmp_path: Path, spawn: Callable[..., Process], model: ScriptedModel
) -> AsyncIterator[Site]:
    async with site_over(redis_url, tmp_path, spawn, config=AGENTS) as site:
        yield site


async def dispatch(site: Site, name: str) -> TaskHandle[str]:
    return await site.hermes.session("chat", parent="boss").dispatch(name, "Think.")


def test_the_article_works_as_it_is(
    redis_server: RedisServer,
    redis_url: str,
    tmp_path: Path,
    spawn: Callable[..., Process],
    model: ScriptedModel,
) -> None:
    shutil.copy(ARTICLE, tmp_path / "agents.yaml")
    (tmp_path / "hermes_callbacks").mkdir(mode=0o755)
    (tmp_path / "hermes_callbacks/handlers.py").write_text(HANDLERS)
    env = {
        "HERMES_CONFIG": str(tmp_path / "agents.yaml"),
        "HERMES_TASK_QUEUE": redis_url,
        "HERMES_RELAY__PORT": str(free_port()),
        "PYTHONPATH": str(ROOT),
    }
    cli = [sys.executable, "-m", "hermes_async.cli"]
    up = spawn([*cli, "up"], env, "up")
    up.wait_for_log("Ctrl-C", timeout=60)
    model.then(say("Chips ", "are ", "scarce.", pause=0.3))

    def run(*args: str) -> str:
        done = subprocess.run(
            [*cli, *args], env={**env, **model.env}, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(run("--json", "task", "create", "parent_agent", "research", "--input", "Chips?"))
    result = run("task", "watch", made["task_id"], "--follow", "--result-only")
    assert "Chips are scarce." in result
    request = model.requests[0]
    assert (request.model, request.last) == ("gpt-4o-mini", "Chips?")
    assert request.tools == ["web_search", "arxiv_api"]

    def said() -> list[str]:
        lines = run("--json", "session", "inbox", made["session_id"]).splitlines()
        return [json.loads(line)["data"].get("text") for line in lines]

    wait_until(lambda: "Research: Chips are scarce." in said(), every=0.5)
    assert "Traceback" not in up.log


async def test_a_cancel_reaches_the_model(thinking: Site, model: ScriptedModel) -> None:
    await thinking.workers(Lane.ASYNC)
    model.then(hang("So far "))
    handle = await dispatch(thinking, "think")
    await wait_until_async(lambda: model.open == 1)
    await handle.cancel()
    task = await ended(handle)
    assert (task.status, task.partials) == (TaskStatus.CANCELLED, {"output": "So far "})
    await wait_until_async(lambda: model.dropped == 1)


async def test_a_budget_ends_it_and_keeps_what_was_said(thinking: Site, model: ScriptedModel) -> None:
    await thinking.workers(Lane.ASYNC)
    model.then(*[Reply(chunks=("So far ",), calls=(("capital", {"country": "France"}),))] * 3)
    handle = await dispatch(thinking, "frugal")
    with pytest.raises(TaskFailed) as failed:
        await handle
    task = await handle.task()
    assert (failed.value.reason, task.partials) == (Reason.BUDGET_EXCEEDED, {"output": "So far "})
    assert task.usage is not None
    assert (task.usage.requests, task.usage.total_tokens) == (2, 240)


async def test_a_worker_that_is_killed_costs_an_attempt_and_no_result(
    thinking: Site, model: ScriptedModel
) -> None:
    (worker,) = await thinking.workers(Lane.ASYNC)
    look_up = call("capital", country="France")
    model.then(look_up, hang("Pa"), look_up, say("Paris."))
    handle = await dispatch(thinking, "think")
    await wait_until_async(lambda: len(model.requests) == 2)
    worker.kill()
    await thinking.workers(Lane.ASYNC)
    assert await asyncio.wait_for(handle, RECOVERY + 30) == "Paris."
    task = await handle.task()
    assert (task.attempt, task.losses) == (2, 1)
    assert task.usage is not None
    assert task.usage.requests == 4  # what the first attempt spent is spent


async def test_a_busy_model_holds_no_slot(
    thinking: Site, model: ScriptedModel, spawn: Callable[..., Process]
) -> None:
    def answer(request: Request) -> Reply:
        first = len(model.requests) == 1
        return status(429, retry_after="2") if first else say("Paris.")

    model.script(answer)
    spawn(worker_command(Lane.ASYNC, concurrency=1), thinking.env)
    waiting = await dispatch(thinking, "think")
    await wait_until_async(lambda: len(model.requests) == 1, timeout=30)
    other = await dispatch(thinking, "think")
    assert await other == "Paris."
    assert (await waiting.task()).status is TaskStatus.RUNNING
    assert await waiting == "Paris."
    assert (await waiting.task()).failures == 0


async def test_another_model_goes_on_in_the_same_task(thinking: Site, model: ScriptedModel) -> None:
    model.script(lambda request: say("I can.") if request.model == "gpt-4o" else status(404))
    await thinking.workers(Lane.ASYNC)
    handle = await dispatch(thinking, "lasting")
    assert await handle == "I can."
    assert await told(handle) == ["queued", "started", "retrying", "started", "partial", "completed"]


async def test_a_worker_leaves_no_connection_behind(thinking: Site, model: ScriptedModel) -> None:
    (worker,) = await thinking.workers(Lane.ASYNC)
    model.then(say("."))
    await (await dispatch(thinking, "think"))
    assert connections(worker, model.port) == 1
    worker.signal(15)
    assert await gone(worker) == 0
    assert "ResourceWarning" not in worker.log
    assert "Traceback" not in worker.log


def connections(worker: Process, port: int) -> int:
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    return sum(c.raddr.port == port for each in family for c in each.net_connections("tcp") if c.raddr)


async def test_in_the_process_lane_it_runs_as_well(thinking: Site, model: ScriptedModel) -> None:
    (worker,) = await thinking.workers(Lane.PROCESS)
    for _ in range(2):  # the second one finds what the first has made
        model.then(call("population", city="Paris"), say("2 ", "million."))
        handle = await dispatch(thinking, "apart")
        assert await asyncio.wait_for(handle, 30) == "2 million."
    model.then(hang("So far "))
    handle = await dispatch(thinking, "apart")
    await wait_until_async(lambda: model.open == 1)
    await handle.cancel()
    assert (await ended(handle)).status is TaskStatus.CANCELLED
    await wait_until_async(lambda: model.dropped == 1)
    worker.signal(15)
    assert await gone(worker) == 0
    assert "Traceback" not in worker.log


async def test_a_worker_without_a_key_says_so_and_does_not_start(
    thinking: Site, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in model.env:
        monkeypatch.delenv(name)
    worker = thinking.start(Lane.ASYNC, 2)
    await wait_until_async(lambda: not worker.alive, timeout=30)
    cure = "hermes-async: agent 'thinker': model 'gpt-4o-mini' needs a key: set OPENAI_API_KEY"
    assert cure in worker.log
    assert "Traceback" not in worker.log
