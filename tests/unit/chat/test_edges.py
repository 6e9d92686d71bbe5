"""What befalls a conversation at its edges: odd characters, slow disks, ids that come again, an early end."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import AgentsConfig, SubagentSpec
from hermes_async.testing import LocalHermes
from tests.support.model import Reply, Request, ScriptedModel, call, hang, say, status
from tests.support.servers import wait_until_async
from tests.unit.chat.conftest import AGENTS, PARENT, Gates, chatting, rest

pytestmark = pytest.mark.anyio


async def test_halves_of_characters_are_no_end_of_the_chat(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path
) -> None:
    model.then(say("half \ud83d a character"), say("fine"))
    async with chatting(hermes, folder=tmp_path) as chat:
        async with asyncio.timeout(5):
            await chat.say("latin-1: \udce9")
            assert await chat.say("and now?") == "fine"
    async with chatting(hermes, folder=tmp_path) as again:
        assert again.last_answer == "fine"


async def test_the_same_id_of_a_later_call_is_another_call(
    hermes: Hermes, model: ScriptedModel, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers number the calls of each answer anew."""
    monkeypatch.setattr("tests.support.completions._ids", itertools.repeat(1))
    gates["tea"].set()
    one = call("delegate", subagent="research", input="tea")
    model.then(one, say("a"), say("b"), one, say("c"), say("d"))
    async with chatting(hermes) as chat:
        await chat.say("look into tea")
        await rest(chat)
        await chat.say("once more")
        await rest(chat)
        assert len(await chat.session.tasks()) == 2


async def test_an_interrupt_while_a_call_is_written_leaves_a_file_that_can_be_read(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, running, most = asyncio.Event(), 0, 0
    loop, fsync = asyncio.get_running_loop(), os.fsync

    def slow(file: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if b"call_" in Path(f"/proc/self/fd/{file}").read_bytes():
            loop.call_soon_threadsafe(entered.set)
            time.sleep(0.3)
        fsync(file)
        running -= 1

    model.then(call("list"), say("over"))
    async with chatting(hermes, folder=tmp_path) as chat:
        monkeypatch.setattr(os, "fsync", slow)
        turn = chat.say("list them")
        await entered.wait()
        chat.interrupt()
        await turn.ended()
        await wait_until_async(lambda: not running)
    assert most == 1


async def test_who_waits_for_a_turn_that_will_not_be_is_told_and_what_was_said_is_kept(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path
) -> None:
    model.then(hang("let me think "))
    async with chatting(hermes, folder=tmp_path) as chat:
        first = chat.say("one")
        await wait_until_async(lambda: first.text)
        second = chat.say("two")
    async with asyncio.timeout(5):
        await second.ended()
    async with chatting(hermes, folder=tmp_path) as again:
        assert again.unanswered == "two"


async def test_a_result_that_was_waited_for_leaves_the_inbox_when_its_turn_is_kept(
    model: ScriptedModel, gates: Gates
) -> None:
    gates["tea"].set()
    waits = PARENT.model_copy(
        update={
            "subagents": (
                SubagentSpec.model_validate({"id": "research", "agent": "research", "async": False}),
            )
        }
    )
    config = AgentsConfig(agents={"parent": waits})
    model.then(call("delegate", subagent="research", input="tea"), hang("It is "), say("over"))
    async with LocalHermes(AGENTS[0], config=config) as hermes, chatting(hermes) as chat:
        turn = chat.say("look into tea")
        await wait_until_async(lambda: turn.text)
        assert "tea: done" in model.requests[1].last
        assert await chat.session.unread() == 1  # a chat that dies now is told again
        chat.interrupt()
        await rest(chat)
    assert len(model.requests) == 2


async def test_a_fault_of_ours_ends_one_turn_and_not_the_chat(
    hermes: Hermes, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.then(say("fine"))
    async with chatting(hermes) as chat:
        with monkeypatch.context() as broken:
            broken.setattr(chat._memory, "prompt", lambda turn: 1 / 0)
            turn = chat.say("one")
            await turn.ended()
        assert turn.end is not None and "ZeroDivisionError" in turn.end.error
        assert await chat.say("two") == "fine"


async def test_an_interrupt_lets_a_delegation_that_is_under_way_be_born(
    hermes: Hermes, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, born = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> str:
        began.set()
        await asyncio.sleep(0.2)
        born.set()
        return "{}"

    monkeypatch.setattr("hermes_async.core.delegation.Delegation.call", slow)
    model.then(call("delegate", subagent="research", input="tea"))
    async with chatting(hermes) as chat:
        turn = chat.say("look into tea")
        await began.wait()
        chat.interrupt()
        await turn.ended()
        assert born.is_set()


async def test_news_whose_turn_had_no_answer_have_one_after_a_new_beginning(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    model.then(call("delegate", subagent="research", input="tea"), say("under way"), status(401), say("done"))
    async with chatting(hermes) as chat:
        await chat.say("look into tea")
        gates["tea"].set()
        await wait_until_async(lambda: chat.has_failed and not chat.is_busy)
        await chat.forget()
        await wait_until_async(lambda: chat.last_answer == "done")
        await rest(chat)
    assert "tea: done" in model.requests[-1].last


async def test_news_that_came_during_a_turn_without_an_answer_have_one_too(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    has_come = asyncio.Event()

    async def refuse(request: Request) -> Reply:
        while not has_come.is_set():
            await asyncio.sleep(0.01)
        return status(401)

    model.then(call("delegate", subagent="research", input="tea"), say("under way"))
    async with chatting(hermes) as chat:
        await chat.say("look into tea")
        model.script(refuse)
        turn = chat.say("and now?")
        await wait_until_async(lambda: len(model.requests) == 3)
        gates["tea"].set()
        await wait_until_async(lambda: chat._memory.inbox.has_news)
        has_come.set()
        await turn.ended()
        model.script(lambda request: say("done"))
        await chat.forget()
        await wait_until_async(lambda: chat.last_answer == "done")
        await rest(chat)
    assert "tea: done" in model.requests[-1].last
