"""A chat that is not open, was left, or is asked from elsewhere says so at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hermes_async.chat import ChatParent
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import Closed, TurnFailed, UserError
from hermes_async.testing import LocalHermes
from tests.support.model import ScriptedModel, hang, say
from tests.support.servers import wait_until_async
from tests.unit.chat.conftest import AGENTS, chatting

pytestmark = pytest.mark.anyio

LEFT = r"^this chat is closed: open another, with `async with ChatParent\(\.\.\.\)`$"
UNOPENED = r"^this chat is not open yet: open it with `async with ChatParent\(\.\.\.\)`$"
USES: dict[str, Callable[[ChatParent], Any]] = {
    "say": lambda chat: chat.say("hello"),
    "again": lambda chat: chat.again(),
    "forget": lambda chat: chat.forget().send(None),
    "pieces": lambda chat: chat.pieces(),
}


@pytest.mark.parametrize("use", USES)
async def test_one_that_is_not_open_or_was_left_refuses(
    hermes: Hermes, model: ScriptedModel, use: str
) -> None:
    chat = ChatParent(hermes, "parent")
    if use != "pieces":  # who watches from the beginning begins before
        with pytest.raises(UserError, match=UNOPENED):
            USES[use](chat)
    async with chat:
        pass
    with pytest.raises(Closed, match=LEFT):
        USES[use](chat)


async def test_while_it_is_being_left_nothing_more_is_said(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(hang())
    async with chatting(hermes) as chat:
        turn = chat.say("hello")
        await wait_until_async(lambda: model.requests)
        leaving = asyncio.create_task(chat.__aexit__(None, None, None))
        await asyncio.sleep(0)
        with pytest.raises(Closed, match=LEFT):
            chat.say("one more thing")
        await leaving
        await asyncio.wait_for(turn.ended(), 5)
        chat._home.open()  # it is left once more


async def test_it_can_be_opened_again_but_not_twice(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(say("one"), say("two"))
    chat = ChatParent(hermes, "parent")
    async with chat:
        assert await chat.say("first") == "one"
        with pytest.raises(UserError, match="this chat is open already"):
            await chat.__aenter__()
    async with chat:
        assert await chat.say("second") == "two"


async def test_another_event_loop_and_a_thread_are_refused(hermes: Hermes, model: ScriptedModel) -> None:
    async def elsewhere() -> None:
        chat.say("hello")

    async with chatting(hermes) as chat:
        with pytest.raises(UserError, match="this chat belongs to another event loop: open one here"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(UserError, match="a chat needs asyncio, of which no event loop runs here"):
            await asyncio.to_thread(chat.say, "hello")


async def test_who_watches_is_done_when_it_is_left(hermes: Hermes, model: ScriptedModel) -> None:
    async def watch() -> list[str]:
        return [type(piece).__name__ async for piece in pieces]

    model.then(say("fine"))
    async with chatting(hermes) as chat:
        pieces = chat.pieces()
        watching = asyncio.create_task(watch())
        await chat.say("hello")
    assert (await asyncio.wait_for(watching, 5))[-1] == "TurnEnded"


async def test_who_does_not_watch_any_more_is_kept_nothing_for(hermes: Hermes, model: ScriptedModel) -> None:
    async with chatting(hermes) as chat:
        chat.pieces()
        gc.collect()
        assert not chat._watchers._queues


async def test_one_that_outlives_its_hermes_says_so_in_its_turn(model: ScriptedModel, hermes: Hermes) -> None:
    async with LocalHermes(*AGENTS, config=hermes.registry.config) as other:
        chat = await ChatParent(other, "parent").__aenter__()
    with pytest.raises(TurnFailed, match="this Hermes is closed: open another"):
        await asyncio.wait_for(chat.say("hello").answer(), 5)
    await chat.__aexit__()


async def test_the_folder_may_be_a_text(hermes: Hermes, model: ScriptedModel, tmp_path: Path) -> None:
    model.then(say("fine"))
    async with chatting(hermes, folder=str(tmp_path)) as chat:
        await chat.say("hello")
    assert [file.name for file in tmp_path.iterdir()] == ["chat.json"]
