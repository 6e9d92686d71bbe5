"""`hermes-async chat` as a person meets it: on a terminal, in a pipe, killed, and taken up again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hermes_async.bootstrap import connect
from hermes_async.core.session import Session
from hermes_async.domain.task import Lane, Task
from hermes_async.settings import Settings
from hermes_async.worker.command import worker_command
from tests.support.model import Reply, Request, ScriptedModel, call, calls, hang, say
from tests.support.servers import ROOT, Process, RedisServer, wait_until
from tests.support.terminal import Terminal

T = TypeVar("T")

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

AGENTS = """
version: "2.4"
agents:
  parent_agent:
    type: conversational
    model: scripted
    subagents: [{id: wait, agent: wait}, {id: echo, agent: echo}]
  wait: {run: "examples.basics:wait"}
  echo: {run: "examples.basics:echo"}
"""
CHAT = [sys.executable, "-m", "hermes_async.cli", "chat"]


@dataclass
class House:
    """A project with a Redis and a worker, and the chats that are opened in it."""

    folder: Path
    env: dict[str, str]

    def terminal(self, session: str, model: ScriptedModel) -> Terminal:
        return Terminal([*CHAT, "--session", session], self.folder, {**self.env, **model.env})

    def pipe(self, session: str, model: ScriptedModel, *words: str) -> subprocess.Popen[str]:
        """A chat that reads messages from a pipe."""
        return subprocess.Popen(
            [*CHAT, "--session", session, *words],
            cwd=self.folder,
            env={**os.environ, **self.env, **model.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self, session: str, model: ScriptedModel, *messages: str) -> tuple[int, str]:
        """Say messages, wait for the tasks, and return the exit code and all that was printed."""
        chat = self.pipe(session, model)
        out, _ = chat.communicate("".join(f"{each}\n" for each in messages), timeout=60)
        return chat.returncode, out

    def unread(self, session: str) -> int:
        return asyncio.run(self._in_session(session, lambda it: it.unread()))

    def tasks(self, session: str) -> Sequence[Task]:
        return asyncio.run(self._in_session(session, lambda it: it.tasks()))

    async def _in_session(self, session: str, ask: Callable[[Session], Awaitable[T]]) -> T:
        async with connect(Settings.read(environ=self.env)) as hermes:
            return await ask(hermes.session(session))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "agents.yaml").write_text(AGENTS)
    server = RedisServer(folder / "redis").start()
    env = {
        "PYTHONPATH": str(ROOT),
        "HERMES_CONFIG": str(folder / "agents.yaml"),
        "HERMES_TASK_QUEUE": server.url,
        "HERMES_LEASE": "2",
        "PYTHONUNBUFFERED": "1",
    }
    worker = Process(worker_command(Lane.ASYNC, concurrency=50), folder / "worker.log", env)
    try:
        worker.wait_for_log("ready.", timeout=60)
        yield House(folder, env)
    finally:
        worker.kill()
        server.kill()


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


def delegating(seconds: float, then: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    """Delegate at the first request, and acknowledge; what comes after that is said by `then`."""

    def script(request: Request) -> Reply:
        if request.messages[-1]["role"] == "tool":
            return say("It is under way.")
        if len(request.said("user")) == 1 and not request.said("tool"):
            return call("delegate", subagent="wait", input=str(seconds))
        return then(request)

    return script


def told(request: Request) -> list[dict[str, Any]]:
    """The news that the last message of a request brings."""
    if not request.last.startswith("<subagent_news>"):
        return []
    return [json.loads(line) for line in request.last.splitlines() if line.startswith("{")]


def read_until(chat: subprocess.Popen[str], wanted: str) -> str:
    """Read what a chat prints, until it has printed this."""
    assert chat.stdout is not None
    seen = ""
    while wanted not in seen:
        letter = chat.stdout.read(1)
        assert letter, seen
        seen += letter
    return seen


def test_in_a_pipe_it_waits_for_what_was_delegated(house: House, model: ScriptedModel) -> None:
    model._script = delegating(0.5, lambda request: say("It is done."))
    code, out = house.says("pipe", model, "wait a bit")
    assert code == 0
    assert re.fullmatch(
        r"> delegate wait 0\.5\nIt is under way\.\n\* wait t\d\d-\w{5} completed: 0\.5\d*\nIt is done\.\n",
        out,
    ), out
    assert house.unread("pipe") == 0
    assert len(model.requests) == 3


def test_it_answers_while_a_task_runs(house: House, model: ScriptedModel) -> None:
    model._script = delegating(2.0, lambda request: say("I am here." if not told(request) else "It is done."))
    code, out = house.says("while", model, "wait a bit", "are you there?")
    assert code == 0
    assert out.index("I am here.") < out.index("completed") < out.index("It is done.")


def test_who_waits_no_longer_learns_that_tasks_go_on(house: House, model: ScriptedModel) -> None:
    model._script = delegating(1.5, lambda request: say("It is done."))
    chat = house.pipe("short", model, "--wait", "0.1", "--message", "wait a bit")
    out, _ = chat.communicate(timeout=60)
    assert chat.returncode == 75
    assert out.endswith("1 task has not ended: come back for what comes of them\n")
    code, out = house.says("short", model)
    assert code == 0
    assert out.endswith("It is done.\n")
    assert sum(len(told(request)) for request in model.requests) == 1


def test_ctrl_c_while_it_waits_leaves_the_tasks_running(house: House, model: ScriptedModel) -> None:
    model._script = delegating(1.0, lambda request: say("It is done."))
    with house.pipe("ctrl-c", model, "--message", "wait a bit") as chat:
        read_until(chat, "under way.")
        chat.send_signal(signal.SIGINT)
        assert chat.wait(30) == 130
    code, out = house.says("ctrl-c", model)
    assert code == 0
    assert out.endswith("It is done.\n")


def test_killed_while_a_task_runs(house: House, model: ScriptedModel) -> None:
    model._script = delegating(0.7, lambda request: say("It is done."))
    with house.pipe("killed-idle", model) as chat:
        assert chat.stdin is not None
        chat.stdin.write("wait a bit\n")
        chat.stdin.flush()
        read_until(chat, "under way.")
        wait_until(lambda: "under way" in (house.folder / ".hermes/chats/killed-idle.json").read_text())
        chat.kill()
    wait_until(lambda: house.unread("killed-idle") == 1)
    code, out = house.says("killed-idle", model)
    assert code == 0
    assert "… It is under way." in out
    assert out.endswith("It is done.\n")
    assert [len(told(request)) for request in model.requests] == [0, 0, 1]
    assert model.requests[-1].said("assistant")[-1] == "It is under way."
    assert len(house.tasks("killed-idle")) == 1


def test_killed_before_the_first_answer(house: House, model: ScriptedModel) -> None:
    model.then(hang(), say("Hello yourself."))
    with house.pipe("killed-first", model) as chat:
        assert chat.stdin is not None
        chat.stdin.write("hello\n")
        chat.stdin.flush()
        wait_until(lambda: model.requests, timeout=30)
        chat.kill()
    code, out = house.says("killed-first", model, "/again")
    assert code == 0
    assert "not answered yet: hello (/again asks again)" in out
    assert out.endswith("Hello yourself.\n")
    assert model.requests[1].said("user") == ["hello"]


def test_killed_between_a_delegation_and_its_acknowledgement(house: House, model: ScriptedModel) -> None:
    """The task is there, and the conversation knows that it was delegated."""
    model.then(call("delegate", subagent="wait", input="0.2"), hang())
    with house.pipe("killed-between", model) as chat:
        assert chat.stdin is not None
        chat.stdin.write("wait a bit\n")
        chat.stdin.flush()
        wait_until(lambda: len(model.requests) == 2, timeout=30)
        chat.kill()
    wait_until(lambda: house.unread("killed-between") == 1)
    model.then(say("It is done."))
    code, out = house.says("killed-between", model)
    assert code == 0
    assert out.endswith("It is done.\n")
    assert [message["role"] for message in model.requests[-1].messages] == [
        *("system", "user", "assistant", "tool", "user"),
    ]
    assert len(house.tasks("killed-between")) == 1


def test_killed_in_the_turn_about_the_news(house: House, model: ScriptedModel) -> None:
    model.then(call("delegate", subagent="wait", input="0.2"), say("Under way."), hang("It is "))
    with house.pipe("killed-news", model) as chat:
        assert chat.stdin is not None
        chat.stdin.write("wait a bit\n")
        chat.stdin.flush()
        read_until(chat, "It is ")
        chat.kill()
    assert house.unread("killed-news") == 1
    model.then(say("It is done."))
    code, out = house.says("killed-news", model)
    assert code == 0
    assert "completed" in out
    assert out.endswith("It is done.\n")
    assert [len(told(request)) for request in model.requests] == [0, 0, 1, 1]
    assert house.unread("killed-news") == 0


def test_five_ends_in_one_turn_are_one_more_turn(house: House, model: ScriptedModel) -> None:
    tasks = [("delegate", {"subagent": "wait", "input": "0.3"})] * 5
    model.then(calls(*tasks), say("They are ", "under way.", pause=2.5), say("All five are done."))
    code, out = house.says("five", model, "wait five times")
    assert code == 0
    assert len(model.requests) == 3
    assert len(told(model.requests[2])) == 5
    assert out.endswith("All five are done.\n")


def test_on_a_terminal(house: House, model: ScriptedModel) -> None:
    def then(request: Request) -> Reply:
        if told(request):
            return say("The wait is over.")
        story = " ".join(f"word{number}" for number in range(400))
        return say(*story.split(" "), pause=0.02) if "story" in request.last else say("I am **here**.")

    model._script = delegating(4.0, then)
    with house.terminal("terminal", model) as terminal:
        terminal.wait_for("say something")
        terminal.enter("wait a bit")
        terminal.wait_for("It is under way.")
        terminal.wait_for("wait             t")  # its bar
        terminal.enter("are you there?")
        terminal.wait_for("I am here.")  # not **here**
        terminal.enter("a story")
        terminal.wait_for("word5")
        typed = len(terminal.text)
        terminal.type("next")  # while it speaks
        terminal.wait_for("n", after=typed)
        terminal.type("\x1b")
        terminal.wait_for("interrupted")
        place = terminal.wait_for("completed: 4.0")
        terminal.wait_for("The wait is over.", after=place)
        terminal.type("\x15")  # clears the line
        terminal.enter("/tasks")
        terminal.wait_for("completed      wait")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "come back with: hermes-async chat parent_agent --session terminal" in terminal.text
    assert "word399" not in terminal.text
    interrupted = next(text for text in model.requests[-1].said("assistant") if "interrupted" in text)
    assert interrupted.startswith("word0word1")


def test_leaving_a_terminal_leaves_the_tasks_running(house: House, model: ScriptedModel) -> None:
    model._script = delegating(2.0, lambda request: say("It is done."))
    with house.terminal("left", model) as terminal:
        terminal.enter("wait a bit")
        terminal.wait_for("It is under way.")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "1 task goes on; come back with:" in terminal.text
    with house.terminal("left", model) as terminal:
        terminal.wait_for("… It is under way.")
        terminal.wait_for("It is done.")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 0
    assert "\x1b[?2004l" in terminal.raw  # the terminal is as it was


def test_from_nothing_and_without_a_model(tmp_path: Path) -> None:
    """One command starts all that is needed, and nothing of it is left."""
    (tmp_path / "agents.yaml").write_text(AGENTS.replace("    model: scripted\n", ""))
    clean = {name: "" for name in os.environ if name.startswith("HERMES_")}
    with Terminal(CHAT, tmp_path, {**clean, "PYTHONPATH": str(ROOT)}) as terminal:
        terminal.wait_for("say something")
        terminal.enter("/echo hello there")
        terminal.wait_for("started t")
        terminal.wait_for("completed: hello there", timeout=60)
        terminal.enter("hello")
        terminal.wait_for("nobody can answer that without a model")
        terminal.enter("/quit")
        assert terminal.wait() == 0
    wait_until(lambda: not _processes_in(tmp_path))


def _processes_in(folder: Path) -> Sequence[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (
                    Path(os.readlink(entry / "cwd")) == folder
                    or str(folder) in (entry / "cmdline").read_text()
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
