"""`session`: the inbox from a shell."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hermes_async.core.hermes import Hermes
from tests.support.servers import wait_until
from tests.unit.cli.conftest import HERMES, Cli, with_hermes


def say(*texts: str) -> None:
    async def post(hermes: Hermes) -> None:
        for text in texts:
            await hermes.session("chat").send_message(text)

    asyncio.run(with_hermes(post))


def test_the_inbox_is_shown_counted_and_acknowledged(online: Path, cli: Cli) -> None:
    assert cli("session", "inbox", "chat", "--count").out == "0\n"
    assert cli("session", "inbox", "chat", "--json").out == ""
    say("good", "morning")
    shown = "#1 session.message - good\n#2 session.message - morning\n"
    for _ in range(2):
        assert cli("session", "inbox", "chat").out == shown
    assert json.loads(cli("session", "inbox", "chat", "--count", "--json").out) == {
        "session_id": "chat",
        "unread": 2,
    }
    lines = cli("session", "inbox", "chat", "--ack", "--json").out.splitlines()
    assert [json.loads(line)["data"]["text"] for line in lines] == ["good", "morning"]
    said = cli("session", "inbox", "chat")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_a_long_inbox_is_shown_whole(online: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_async.cli.sessions._PAGE", 3)
    say(*map(str, range(10)))
    assert len(cli("session", "inbox", "chat", "--ack").out.splitlines()) == 10
    assert cli("session", "inbox", "chat", "--count").out == "0\n"


def test_the_inbox_is_followed_and_what_comes_together_is_one_line(online: Path) -> None:
    say("a", "b")
    command = [*HERMES, "session", "inbox", "chat", "--follow", "--ack", "--coalesce", "0.5", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert texts(following.stdout.readline()) == ["a", "b"]
        say("c", "d", "e")
        assert texts(following.stdout.readline()) == ["c", "d", "e"]
        wait_until(lambda: asyncio.run(with_hermes(unread)) == 0)
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130


def texts(line: str) -> list[str]:
    return [event["data"]["text"] for event in json.loads(line)]


async def unread(hermes: Hermes) -> int:
    return await hermes.session("chat").unread()


def test_a_session_is_watched_so_far_and_on(online: Path, cli: Cli) -> None:
    say("a", "b", "c")
    assert cli("session", "watch", "chat", "--after", "2").out == "#3 session.message - c\n"
    assert cli("session", "watch", "chat", "--after", "3").out == ""
    with subprocess.Popen(
        [*HERMES, "session", "watch", "chat", "-f"], stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert [following.stdout.readline()[:2] for _ in range(3)] == ["#1", "#2", "#3"]
        say("d")
        assert following.stdout.readline() == "#4 session.message - d\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130


@pytest.mark.parametrize("command", ["inbox", "watch"])
def test_of_a_session_without_events_that_is_said(online: Path, cli: Cli, command: str) -> None:
    said = cli("session", command, "nosuch")
    assert (said.code, said.out, said.err) == (0, "", "nothing has happened in session nosuch so far\n")
    said = cli("session", command, "nosuch", "--json")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_sessions_are_listed_with_their_tasks(online: Path, cli: Cli) -> None:
    for session in ("one", "two", "one"):
        cli("task", "create", "parent_agent", "research", "--session", session)
    task_id = cli("task", "list", "--session", "one", "--limit", "1").out.split("\t")[0]
    cli("task", "cancel", task_id)
    rows = [line.split("\t") for line in cli("session", "list").out.splitlines()]
    assert [(name, tasks) for name, _, tasks in rows] == [
        ("one", "1 cancelled, 1 queued"),
        ("two", "1 queued"),
    ]
    (told,) = json.loads(cli("session", "list", "--limit", "1", "--json").out)
    assert (told["session_id"], told["tasks"]) == ("one", {"cancelled": 1, "queued": 1})
    assert told["newest"] > 0


def test_a_window_without_anything_to_come_is_refused(online: Path, cli: Cli) -> None:
    said: Any = cli("session", "inbox", "chat", "--coalesce", "1")
    assert (said.code, said.out) == (2, "")
    assert "use it with --follow" in said.err
