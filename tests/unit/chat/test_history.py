"""A conversation that is left and taken up again, and the file that it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hermes_async.adapters.file_lock import FileLock
from hermes_async.chat.files import file_of, hold, let_go
from hermes_async.chat.history import UNKNOWN, History
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ConfigError, InvalidInput, StoreUnavailable, TurnFailed
from tests.support.model import ScriptedModel, call, hang, say, status
from tests.support.servers import wait_until_async
from tests.unit.chat.conftest import Gates, chatting, rest

pytestmark = pytest.mark.anyio


def said_in(folder: Path, session: str = "chat") -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(file_of(folder, session).read_text())
    return found


async def test_a_conversation_goes_on(
    hermes: Hermes, model: ScriptedModel, gates: Gates, tmp_path: Path
) -> None:
    model.then(call("delegate", subagent="research", input="chips"), say("under way"))
    async with chatting(hermes, folder=tmp_path) as chat:
        await chat.say("go")
    gates["chips"].set()
    model.then(say("it is done"), say("chips"))
    async with chatting(hermes, folder=tmp_path) as chat:
        assert chat.last_answer == "under way"
        await wait_until_async(lambda: len(model.requests) == 3)
        await rest(chat)
        assert await chat.say("what was it about?") == "chips"
    assert model.requests[-1].said("user")[0] == "go"
    assert len(model.requests[-1].said("user")) == 3
    assert file_of(tmp_path, "chat").stat().st_mode & 0o77 == 0


async def test_news_of_a_turn_that_was_kept_are_not_told_again(
    hermes: Hermes, model: ScriptedModel, gates: Gates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chat dies between keeping the turn and acknowledging: the next one knows."""
    gates["chips"].set()
    model.then(call("delegate", subagent="research", input="chips"), say("under way"), say("it is done"))
    async with chatting(hermes, folder=tmp_path) as chat:

        async def away(*seqs: int) -> int:
            raise StoreUnavailable("gone")

        monkeypatch.setattr(chat.session, "ack", away)
        await chat.say("go")
        await wait_until_async(lambda: chat.last_answer == "it is done")
        await wait_until_async(lambda: said_in(tmp_path)["used"])
        assert await chat.session.unread() == 1
    async with chatting(hermes, folder=tmp_path) as chat:
        await rest(chat)
        assert await chat.session.unread() == 0
    assert len(model.requests) == 3


async def test_news_of_a_turn_that_was_not_kept_come_again(
    hermes: Hermes, model: ScriptedModel, gates: Gates, tmp_path: Path
) -> None:
    gates["chips"].set()
    model.then(
        call("delegate", subagent="research", input="chips"), say("under way"), status(401), say("done")
    )
    async with chatting(hermes, folder=tmp_path) as chat:
        await chat.say("go")
        await wait_until_async(lambda: chat.has_failed)
    async with chatting(hermes, folder=tmp_path) as chat:
        await wait_until_async(lambda: chat.last_answer == "done")
        await rest(chat)
    assert "chips: done" in model.requests[-1].last


async def test_what_was_not_answered_is_known_to_the_next_chat(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path
) -> None:
    model.then(status(401), say("hello yourself"))
    async with chatting(hermes, folder=tmp_path) as chat:
        with pytest.raises(TurnFailed):
            await chat.say("hello")
    async with chatting(hermes, folder=tmp_path) as chat:
        assert chat.unanswered == "hello"
        again = chat.again()
        assert again is not None
        assert await again == "hello yourself"
    assert said_in(tmp_path)["unanswered"] is None


async def test_who_leaves_in_an_answer_finds_what_was_said_of_it(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path
) -> None:
    model.then(hang("once upon "))
    async with chatting(hermes, folder=tmp_path) as chat:
        turn = chat.say("a story")
        await wait_until_async(lambda: turn.text)
    async with chatting(hermes, folder=tmp_path) as chat:
        assert chat.last_answer == "once upon  [interrupted]"


async def test_the_file_never_has_a_call_without_a_result(
    hermes: Hermes, model: ScriptedModel, gates: Gates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    keep = History.keep

    def watched(history: History) -> None:
        keep(history)
        kept.append(said_in(tmp_path)["messages"])

    monkeypatch.setattr(History, "keep", watched)
    model.then(call("delegate", subagent="research", input="chips"), call("list"), say("under way"))
    async with chatting(hermes, folder=tmp_path) as chat:
        await chat.say("go")
    placeholders = 0
    for messages in kept:
        open_calls: set[str] = set()
        for message in messages:
            parts = message["parts"]
            returned = {part["tool_call_id"] for part in parts if part["part_kind"] == "tool-return"}
            assert returned == open_calls
            open_calls = {part["tool_call_id"] for part in parts if part["part_kind"] == "tool-call"}
            placeholders += sum(part.get("content") == UNKNOWN for part in parts)
        assert not open_calls
    assert len(kept) == 4
    assert placeholders == 2


async def test_one_chat_at_a_time_holds_a_conversation(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path
) -> None:
    async with chatting(hermes, folder=tmp_path):
        with pytest.raises(InvalidInput, match="is open in another chat"):
            async with chatting(hermes, folder=tmp_path):
                pass
        async with chatting(hermes, "another", folder=tmp_path):
            pass
    async with chatting(hermes, folder=tmp_path):
        pass
    assert not list(tmp_path.glob("*.lock"))


def test_who_waits_for_a_lock_that_is_removed_takes_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, attempt = file_of(tmp_path, "chat"), FileLock.attempt
    first = hold(file, "chat")

    def late(path: Path, kind: int) -> FileLock | None:
        """Open the file before it is removed, and lock it afterwards."""
        monkeypatch.setattr(FileLock, "attempt", attempt)
        lock = FileLock(path)
        let_go(file, first)
        assert lock.take(kind)
        return lock

    monkeypatch.setattr(FileLock, "attempt", late)
    second = hold(file, "chat")
    with pytest.raises(InvalidInput, match="is open in another chat"):
        hold(file, "chat")
    let_go(file, second)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("no folder")
    with pytest.raises(ConfigError, match=r"chats: cannot be written \(.*\); check its permissions"):
        hold(file_of(tmp_path / "chats", "chat"), "chat")


@pytest.mark.parametrize("content", ["", "{", '{"session": "chat", "parent": "x", "messages": [1]}', "[]"])
async def test_a_file_that_cannot_be_read_is_left_alone(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path, content: str
) -> None:
    file = file_of(tmp_path, "chat")
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"chat\.json: cannot go on .* move the file away"):
        async with chatting(hermes, folder=tmp_path):
            pass
    assert file.read_text() == content


def test_sessions_do_not_share_files(tmp_path: Path) -> None:
    ids = ["chat", "Chat", "a/b", "a%2Fb", "..", ".", "x" * 200, "x" * 199 + "y", "../../etc/passwd", "ä"]
    files = [file_of(tmp_path, each) for each in ids]
    assert len({str(file).lower() for file in files}) == len(ids)
    assert {file.parent for file in files} == {tmp_path}
    for file in files:
        file.with_suffix(".lock").write_text("")
