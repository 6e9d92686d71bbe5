"""`hermes-async callbacks`, and what other commands say of callbacks."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from hermes_async.core.hermes import Hermes
from hermes_async.domain.failure import ErrorInfo
from tests.support.servers import Process, wait_until
from tests.support.values import make_event, make_task
from tests.unit.cli.conftest import HERMES, Cli, with_hermes

TELLING = """\
agents:
  parent_agent:
    type: conversational
    subagents:
      - id: research
        callbacks: {on_complete: told}
  research_agent:
    run: "examples.basics:wait"
"""
#: The article's, word for word but for the package's name.
ARTICLE = """\
from hermes_async.sdk import TaskResult

def research_callback_handler(task_result: TaskResult, parent_context: dict):
    if task_result.status == "completed":
        parent_context["session"].send_message(f"Research {task_result.task_id}: {task_result.output[:500]}")
"""


async def end_two(hermes: Hermes) -> list[str]:
    """Two tasks of session `chat` are completed; return the ids of their callbacks."""
    ids = []
    for text in ("first", "second"):
        task = make_task("chat", options={"callbacks": {"on_complete": "told"}}, input={"text": text})
        await hermes.store.create(task, None, None)
        claimed = await hermes.store.claim(task.id, "w1", 60)
        assert claimed is not None
        await hermes.store.append(make_event(claimed, "task.completed"))
        ids.append(f"{task.id}:on_complete")
    return ids


async def kill_first(hermes: Hermes) -> None:
    call = await hermes.store.ledger.claim(60)
    assert call is not None
    await hermes.store.ledger.give_up(call, ErrorInfo(type="ValueError", message="no ❄"))


def ids(cli: Cli, *args: str) -> list[str]:
    return [row["id"] for row in json.loads(cli("callbacks", "list", *args, "--json").out)]


def test_what_waits_and_what_is_dead(online: Path, cli: Cli) -> None:
    first, second = anyio.run(with_hermes, end_two)
    anyio.run(with_hermes, kill_first)
    assert ids(cli) == [second, first]
    assert ids(cli, "--dead", "--session", "chat") == [first]
    assert ids(cli, "--session", "elsewhere") == []
    row = cli("callbacks", "list", "--dead").out.split("\t")
    assert row[:5] == [first, "dead", "told", "chat", "1"]
    assert row[5].startswith("ValueError: no ❄, ")
    found = json.loads(cli("doctor", "--json").out)["checks"]
    said = [
        (each["status"], each["detail"].partition(";")[0]) for each in found if each["check"] == "callbacks"
    ]
    assert [status for status, _ in said] == ["warning", "warning"]
    assert "1 wait" in said[0][1]
    assert "nobody calls" in said[0][1]
    assert said[1][1] == "1 failed for good"


def test_another_chance_or_none(online: Path, cli: Cli) -> None:
    first, _second = anyio.run(with_hermes, end_two)
    assert (cli("callbacks", "redeliver", first).code, cli("callbacks", "discard", first).code) == (1, 1)
    assert cli("callbacks", "redeliver", "nonsense").err == (
        "hermes-async: no dead callback 'nonsense'; see `hermes-async callbacks list --dead`\n"
    )
    assert cli("callbacks", "redeliver").code == 2
    anyio.run(with_hermes, kill_first)
    assert cli("callbacks", "redeliver", first).out == "1 callback is tried again\n"
    assert ids(cli, "--dead") == []
    anyio.run(with_hermes, kill_first)
    said = cli("callbacks", "redeliver", "--all-dead", "--json").out
    assert json.loads(said) == {"redelivered": [first]}
    anyio.run(with_hermes, kill_first)
    assert cli("callbacks", "discard", first).out == f"callback {first} is gone\n"
    assert ids(cli, "--dead") == []


def test_a_name_of_nothing_stops_every_command(project: Path, cli: Cli) -> None:
    (project / "agents.yaml").write_text(TELLING)
    message = (
        "agents.yaml:6:34: no callback is named 'told'; define it in hermes_callbacks/ beside agents.yaml"
    )
    for command in (("agents", "check"), ("task", "list"), ("worker", "--lane", "callbacks"), ("up",)):
        said = cli(*command)
        assert (said.code, said.err) == (2, f"hermes-async: {message}\n")


def test_agents_tell_who_is_called(project: Path, cli: Cli) -> None:
    (project / "agents.yaml").write_text(TELLING)
    (project / "hermes_callbacks").mkdir(0o755)
    (project / "hermes_callbacks/mine.py").write_text("def told(result, parent): ...\nraise SystemExit\n")
    assert "ok    parent_agent -> research: research_agent, on_complete told" in cli("agents", "check").out
    listed = json.loads(cli("agents", "list", "--json").out)
    assert listed[0]["callbacks"] == {"research": {"on_complete": "told"}}
    said = cli("worker", "--lane", "callbacks")  # only it runs the file
    assert said.code == 2
    assert said.err.endswith("hermes_callbacks/mine.py:2: cannot be loaded: SystemExit\n")


def test_the_article_s_handler(online: Path, cli: Cli, spawn: Callable[..., Process]) -> None:
    (online / "agents.yaml").write_text(TELLING.replace("told", "research_callback_handler"))
    (online / "hermes_callbacks").mkdir(0o755)
    (online / "hermes_callbacks/research.py").write_text(ARTICLE)
    worker = spawn([*HERMES, "worker", "--lane", "callbacks"], {"HERMES_CONFIG": str(online / "agents.yaml")})
    worker.wait_for_log("callbacks: 1 function")

    async def complete(hermes: Hermes) -> str:
        session = hermes.session("chat", parent="parent_agent")
        task = await (await session.dispatch("research", seconds=0)).task()
        claimed = await hermes.store.claim(task.id, "w1", 60)
        assert claimed is not None
        event = make_event(claimed, "task.completed")
        await hermes.store.append(
            event.model_copy(update={"data": event.data.model_copy(update={"output": "x" * 600})})
        )
        return task.id

    async def said(hermes: Hermes) -> list[Any]:
        pending = await hermes.session("chat").pending()
        return [each.event.data.text for each in pending if each.event.type == "session.message"]

    task_id = anyio.run(with_hermes, complete)
    found = wait_until(lambda: anyio.run(with_hermes, said))
    assert found == [f"Research {task_id}: {'x' * 500}"]
    assert "1 worker calls; 0 wait" in cli("doctor").out
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "none waits; no worker calls" in cli("doctor").out
