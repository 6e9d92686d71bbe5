"""Long conversations: what is sent of them is bounded, begins where somebody spoke, and is whole."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from hermes_async.chat.files import file_of
from hermes_async.chat.parent import ChatParent
from hermes_async.chat.window import LEFT_OUT, first_of_half, first_sent
from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import AgentsConfig, SessionSpec
from hermes_async.domain.errors import TurnFailed
from hermes_async.testing import LocalHermes
from tests.support.model import Reply, Request, ScriptedModel, call, say, status, too_long
from tests.support.servers import wait_until_async
from tests.unit.chat.conftest import AGENTS, PARENT, Gates, chatting, rest

pytestmark = pytest.mark.anyio

#: Tokens, and as many bytes as are taken for one.
BUDGET, BYTES = 400, 4


@asynccontextmanager
async def bounded(folder: Path | None = None, most: int = BUDGET) -> AsyncIterator[ChatParent]:
    session = SessionSpec(context_tokens=most)
    config = AgentsConfig(agents={"parent": PARENT.model_copy(update={"session": session})})
    async with LocalHermes(*AGENTS, config=config) as hermes, chatting(hermes, folder=folder) as chat:
        yield chat


def said(request: Request) -> list[str]:
    """What was said of old and is sent, without the system prompt."""
    return [text for role in ("user", "assistant", "tool") for text in request.said(role)]


def is_brief(request: Request) -> bool:
    return LEFT_OUT in request.said("system")[0]


async def test_what_is_sent_of_a_long_conversation_is_bounded(model: ScriptedModel, tmp_path: Path) -> None:
    model.script(lambda request: say(f"yes {'a' * 90}"))
    async with bounded(tmp_path) as chat:
        for number in range(40):
            await chat.say(f"message {number:02} {'b' * 90}")
    requests = model.requests
    assert all(sum(map(len, said(request))) <= BUDGET * BYTES for request in requests)
    assert all(request.said("user")[-1].startswith(f"message {at:02}") for at, request in enumerate(requests))
    assert [is_brief(request) for request in requests] == [False] * 8 + [True] * 32
    begins = [
        len(list(same)) for _, same in itertools.groupby(request.said("user")[0] for request in requests)
    ]
    assert begins == [8, 5, 5, 5, 5, 5, 5, 2]  # a prompt cache is of use meanwhile
    assert file_of(tmp_path, "chat").stat().st_size < 8_000


async def test_it_is_told_also_by_the_next_chat_and_not_after_a_new_beginning(
    model: ScriptedModel, tmp_path: Path
) -> None:
    model.script(lambda request: say("yes"))
    async with bounded(tmp_path) as chat:
        for _ in range(3):
            await chat.say("c" * 1_000)
    async with bounded(tmp_path) as chat:
        await chat.say("short")
        await chat.forget()
        await chat.say("anew")
    assert [is_brief(request) for request in model.requests] == [False, True, True, True, False]


async def test_tasks_are_not_forgotten_with_the_turn_that_began_them(
    model: ScriptedModel, gates: Gates
) -> None:
    model.then(call("delegate", subagent="research", input="chips"), say("under way"))
    async with bounded() as chat:
        await chat.say("look into chips")
        (task,) = await chat.session.tasks()
        model.script(lambda request: say("yes"))
        for _ in range(3):
            await chat.say("d" * 1_000)
        assert "chips" not in "".join(said(model.requests[-1]))
        model.script(lambda request: say("yes") if request.said("tool") else call("list"))
        await chat.say("what runs?")
        assert task.id in model.requests[-1].said("tool")[0]
        model.script(lambda request: say("done"))
        gates["chips"].set()
        await wait_until_async(lambda: "chips: done" in model.requests[-1].last)
        await rest(chat)


async def test_a_model_that_takes_less_is_asked_with_half_until_it_does(
    hermes: Hermes, model: ScriptedModel
) -> None:
    def takes_1000_characters(request: Request) -> Reply:
        return say("a" * 50) if sum(map(len, said(request))) <= 1_000 else too_long()

    model.script(takes_1000_characters)
    async with chatting(hermes) as chat:
        for number in range(30):
            assert await chat.say(f"message {number} {'b' * 50}") == "a" * 50
    refused = [request for request in model.requests if sum(map(len, said(request))) > 1_000]
    assert 2 <= len(refused) <= 6
    assert is_brief(model.requests[-1])


async def test_one_message_that_is_too_long_by_itself_spoils_nothing(
    hermes: Hermes, model: ScriptedModel
) -> None:
    model.script(lambda request: too_long() if any(len(each) > 999 for each in said(request)) else say("yes"))
    async with chatting(hermes) as chat:
        await chat.say("remember: 42")
        await chat.say("and 43")
        with pytest.raises(TurnFailed, match=r"too long for model '.*, also without .* say less"):
            await chat.say("e" * 1_000)
        assert chat.unanswered is None
        assert await chat.say("what was it?") == "yes"
    assert model.requests[-1].said("user") == ["remember: 42", "and 43", "what was it?"]


async def test_a_turn_whose_results_are_too_long_is_left_out_by_the_next(
    hermes: Hermes, model: ScriptedModel
) -> None:
    def answer(request: Request) -> Reply:
        if request.said("tool"):
            return too_long()
        return call("list") if request.last == "list them" else say("yes")

    model.script(answer)
    async with chatting(hermes) as chat:
        await chat.say("hello")
        with pytest.raises(TurnFailed, match="too long"):
            await chat.say("list them")
        assert await chat.say("never mind") == "yes"
    assert model.requests[-1].said("user") == ["never mind"]


async def test_nothing_is_forgotten_before_there_is_an_answer(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(say("yes"), too_long(), status(401), say("42"))
    async with chatting(hermes) as chat:
        await chat.say("remember: 42")
        with pytest.raises(TurnFailed, match="key"):
            await chat.say("what was it?")
        assert await chat.again() == "42"
    assert [len(request.said("user")) for request in model.requests] == [1, 2, 1, 2]


def turn(size: int, *, calls: int = 0) -> list[ModelMessage]:
    """A prompt, calls and an answer, each of `size` tokens."""
    text = "x" * size * BYTES
    called: list[list[ModelMessage]] = [
        [
            ModelResponse(parts=[ToolCallPart("list", text, f"call_{number}")]),
            ModelRequest(parts=[ToolReturnPart("list", text, f"call_{number}")]),
        ]
        for number in range(calls)
    ]
    prompt: ModelMessage = ModelRequest(parts=[UserPromptPart(text)])
    return [prompt, *itertools.chain(*called), ModelResponse(parts=[TextPart(text)])]


@pytest.mark.parametrize(
    ("messages", "most", "first"),
    [
        ([], 10, 0),
        (turn(5), 10, 0),
        (turn(6), 10, 0),  # the last turn is sent whole, whatever it takes
        (turn(1) + turn(6), 10, 2),
        (turn(1) * 5, 10, 0),
        (turn(1) * 6, 10, 8),  # two turns: no more than half
        (turn(1) * 6, 12, 0),
        (turn(1) + turn(1, calls=3) + turn(1), 11, 10),  # never in the middle of a turn
        (turn(1) + turn(1, calls=1) + turn(1), 7, 6),
    ],
)
def test_where_what_is_sent_begins(messages: list[ModelMessage], most: int, first: int) -> None:
    assert first_sent(messages, most) == first


def test_half_of_what_was_too_much() -> None:
    messages = turn(1) * 8
    assert first_of_half(messages, 0) == 8
    assert first_of_half(messages, 8) == 12
    assert first_of_half(messages, 12) == 14
    assert first_of_half(messages, 14) is None
    assert first_of_half(turn(1, calls=5), 0) is None
