"""`hermes-async chat` in a pipe: over a real Redis, and without anybody who works."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_async.adapters.file_lock import FileLock
from hermes_async.chat.files import file_of, hold, let_go
from tests.support.model import ScriptedModel, call, say, status
from tests.unit.cli.conftest import AGENTS, Cli

WITH_MODEL = AGENTS.replace("type: conversational", "type: conversational\n    model: scripted")


@pytest.fixture
def model(online: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """A project whose parent has a model, and that model."""
    (online / "agents.yaml").write_text(WITH_MODEL)
    with ScriptedModel() as model:
        for name, value in model.env.items():
            monkeypatch.setenv(name, value)
        yield model


def test_without_a_model_slash_commands_do_it(online: Path, cli: Cli) -> None:
    said = cli("chat", "--session", "s", "--wait", "0", "--message", "/research 3", "--message", "/tasks")
    assert said.code == 75
    started, listed = said.out.splitlines()
    assert started.startswith("started t")
    assert listed.split() == [started.split()[1], "queued", "research"]
    assert "gives parent_agent no `model`" in said.err
    assert "1 task has not ended" in said.err
    assert "tasks wait for `hermes-async up`" in said.err


def test_without_a_model_a_message_is_a_mistake(online: Path, cli: Cli) -> None:
    said = cli("chat", "--message", "hello")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("there is no model to talk with") == 1
    assert "\n! nobody can answer that without a model; /help shows" in said.err


def test_news_are_printed_and_acknowledged(online: Path, cli: Cli) -> None:
    cli("task", "create", "parent_agent", "research", "--session", "s", "--async")
    said = cli("chat", "--session", "s", "--message", "/tasks", "--wait", "0", "--json")
    lines = [json.loads(line) for line in said.out.splitlines()]
    task_id = next(line["tasks"][0]["id"] for line in lines if line["type"] == "chat.reply")
    cli("task", "cancel", task_id)
    said = cli("chat", "--session", "s", "--message", "/help")
    assert said.code == 0
    assert f"* research {task_id[:9]} was cancelled" in said.out.splitlines()
    assert cli("session", "inbox", "s", "--count").out == "0\n"


def test_with_whom(project: Path, cli: Cli) -> None:
    def error(*words: str) -> str:
        said = cli("chat", *words)
        assert (said.code, said.out) == (2, "")
        return said.err

    assert "did you mean 'parent_agent'" in error("parent_agnt")
    assert "research_agent is no conversation; name one of: parent_agent" in error("research_agent")
    (project / "agents.yaml").write_text(
        AGENTS.replace("agents:", "agents:\n  other: {type: conversational}", 1)
    )
    assert "with whom? name one of: other, parent_agent" in error()
    (project / "agents.yaml").unlink()
    assert "Begin with these two files" in error()


def test_an_answer_comes_as_it_is(model: ScriptedModel, cli: Cli) -> None:
    model.then(say("It ", "is so."), call("list"), say("Nothing\n", "yet."))
    said = cli("chat", "--message", "is it?", "--message", "and what runs?")
    assert (said.code, said.out) == (0, "It is so.\n> list\nNothing\nyet.\n")


def test_everything_as_json(model: ScriptedModel, cli: Cli) -> None:
    model.then(call("delegate", subagent="research", input="1"), say("under way"))
    said = cli("chat", "--message", "go", "--wait", "0", "--json")
    types = [json.loads(line)["type"] for line in said.out.splitlines()]
    called, returned = types.index("chat.tool_called"), types.index("chat.tool_returned")
    assert types.index("chat.turn_began") < called < returned < types.index("chat.text")
    assert types.index("chat.text") < types.index("chat.turn_ended")
    assert types.count("task.queued") == 1
    assert (said.code, said.err) == (75, "")


def test_a_model_that_does_not_answer_is_an_exit_code(model: ScriptedModel, cli: Cli) -> None:
    model.then(status(401), say("here"))
    said = cli("chat", "--session", "s", "--message", "hello")
    who = f"model {model.requests[0].model!r} at {model.url}"
    problem = f"{who} (HTTP 401) refuses the key: check that it is valid here"
    assert (said.code, said.out) == (1, f"! {problem}; /again asks again\n")
    said = cli("chat", "--session", "s", "--message", "/again")
    assert (said.code, said.out) == (0, "here\n")
    assert "not answered yet: hello" in said.err


def test_a_missing_key_is_a_sentence_and_commands_work(
    model: ScriptedModel, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    said = cli("chat", "--message", "/tasks")
    assert (said.code, said.out) == (0, "there are no tasks yet\n")
    assert "model 'scripted' needs a key: set OPENAI_API_KEY" in said.err


def test_two_do_not_talk_in_one_session(model: ScriptedModel, cli: Cli, online: Path) -> None:
    (online / ".hermes/chats").mkdir(parents=True)
    lock = FileLock.attempt(online / ".hermes/chats/s.lock", fcntl.LOCK_EX)
    assert lock is not None
    try:
        said = cli("chat", "--session", "s", "--message", "hello")
    finally:
        lock.release()
    assert said.code == 2
    assert "session s is open in another chat" in said.err


def test_nor_do_two_without_a_model(cli: Cli, online: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share an inbox: what one of them acknowledges the other would not hear of."""
    chats = online / ".hermes/chats"
    lock = hold(file_of(chats, "s"), "s")
    try:
        said = cli("chat", "--session", "s", "--message", "/tasks")
    finally:
        let_go(file_of(chats, "s"), lock)
    assert (said.code, said.out) == (2, "")
    assert "session s is open in another chat" in said.err
    assert cli("chat", "--session", "s", "--message", "/tasks").out == "there are no tasks yet\n"
    assert not list(chats.iterdir())


def test_a_stdin_that_is_closed_is_an_empty_one(
    online: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    said = cli("chat", "--wait", "0")
    assert (said.code, said.out) == (0, "")
