"""A parent that chats: over the real core, and a model behind a real socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hermes_async.chat.faults import STILL
from hermes_async.chat.parent import ChatParent
from hermes_async.chat.pieces import Text, TurnBegan, TurnEnded
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ConfigError, InvalidInput, TurnFailed, UnknownAgent
from tests.support.model import ScriptedModel, broken, call, calls, hang, raw, say, status
from tests.support.servers import wait_until_async
from tests.unit.chat.conftest import Gates, chatting, rest

pytestmark = pytest.mark.anyio


async def test_it_answers_in_pieces_and_as_a_text(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(say("It ", "is ", "so."))
    async with chatting(hermes) as chat:
        turn = chat.say("is it so?")
        assert await turn == "It is so."
        pieces = [piece async for piece in turn]
    assert [type(piece) for piece in pieces] == [TurnBegan, Text, Text, Text, TurnEnded]
    assert pieces[-1].usage.model_dump() == {
        "requests": 1, "tool_calls": 0, "input_tokens": 100, "output_tokens": 20, "cost_usd": None
    }  # fmt: skip
    (request,) = model.requests
    assert request.streamed
    assert request.said("system")[0].startswith("Be brief.\n\nYou can delegate")
    assert request.said("user") == ["is it so?"]
    assert set(request.tools) == {"delegate", "check", "list", "message", "answer", "cancel"}


async def test_it_goes_on_talking_while_a_task_runs_and_takes_a_turn_at_its_end(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    model.then(call("delegate", subagent="research", input="chips"), say("I look into it."))
    model.then(say("Yes, still."), say("It is done."))
    async with chatting(hermes) as chat:
        assert await chat.say("look into chips") == "I look into it."
        (task,) = await chat.session.tasks()
        (returned,) = [json.loads(text) for text in model.requests[1].said("tool")]
        assert returned["task_id"] == task.id
        assert await chat.say("are you there?") == "Yes, still."
        gates["chips"].set()
        await wait_until_async(lambda: len(model.requests) == 4)
        await rest(chat)
        assert chat.last_answer == "It is done."
        assert "chips: done" in model.requests[3].last
        assert task.id in model.requests[3].last
    assert not model.open


async def test_ends_during_a_turn_are_one_turn_after_it(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    topics = [f"topic {number}" for number in range(5)]
    model.then(calls(*(("delegate", {"subagent": "research", "input": topic}) for topic in topics)))
    model.then(say("all are under way"), hang("let me think "), say("five are done"))
    async with chatting(hermes) as chat:
        await chat.say("look into five things")
        turn = chat.say("tell me a long story")
        await wait_until_async(lambda: turn.text)
        for topic in topics:
            gates[topic].set()
        await wait_until_async(lambda: _unread(chat, 5))
        assert len(model.requests) == 3
        chat.interrupt()
        await rest(chat)
    assert len(model.requests) == 4
    last = model.requests[3]
    assert sorted(line["output"] for line in _lines(last.last)) == [f"{topic}: done" for topic in topics]
    assert turn.end is not None and turn.end.how == "interrupted"
    assert last.said("assistant")[-1] == "let me think  [interrupted]"


async def _unread(chat: ChatParent, wanted: int) -> bool:
    return await chat.session.unread() == wanted


def _lines(frame: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in frame.splitlines() if line.startswith("{")]


async def test_ends_between_a_call_and_its_result_wait(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    """The task ends while the model still hears of its other calls: nothing comes between."""
    gates["quick"].set()
    model.then(call("delegate", subagent="research", input="quick"))
    model.then(call("list").but(delay=0.3), say("under way"), say("done"))
    async with chatting(hermes) as chat:
        await chat.say("go")
        await rest(chat)
    assert [request.messages[-1]["role"] for request in model.requests] == ["user", "tool", "tool", "user"]


async def test_ends_below_a_task_are_its_own_affair_but_questions_are_everybody_s(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    for number in range(3):
        gates[f"part {number}"].set()
    model.then(call("delegate", subagent="leads", input="3"), say("under way"), say("Blue?"), say("all done"))
    async with chatting(hermes) as chat:
        await chat.say("go")
        await wait_until_async(lambda: len(model.requests) == 3)
        (asked,) = _lines(model.requests[2].last)
        assert (asked["news"], asked["question"]) == ("input_required", "which colour?")
        await (await chat.session.handle(asked["task_id"])).answer("blue")
        await wait_until_async(lambda: len(model.requests) == 4)
        await rest(chat)
    assert [(one["news"], one["agent"]) for one in _lines(model.requests[3].last)] == [("completed", "leads")]
    assert len(model.requests) == 4


async def test_hostile_output_stays_in_its_frame(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(
        call("delegate", subagent="hostile", input="t00-x"), say("under way"), say("It says nonsense.")
    )
    async with chatting(hermes) as chat:
        await chat.say("go")
        await rest(chat)
    told = model.requests[2].last
    assert told.count("</subagent_news>") == 1
    assert told.endswith("</subagent_news>")
    assert "\x1b" not in told
    assert "\nuser:" not in told


async def test_a_question_comes_to_the_model_and_is_answered_by_it(
    hermes: Hermes, model: ScriptedModel
) -> None:
    def answers(request: Any) -> Any:
        if request.last.startswith("<subagent_news>") and "input_required" in request.last:
            return call("answer", task_id=_lines(request.last)[0]["task_id"], text="blue")
        return say("ok")

    model.then(call("delegate", subagent="asks", input="which colour?"), say("under way"))
    async with chatting(hermes) as chat:
        await chat.say("go")
        model._script = answers
        await wait_until_async(lambda: _ended(chat))
        await rest(chat)
        (task,) = await chat.session.tasks()
    assert task.output == "told blue"


async def _ended(chat: ChatParent) -> bool:
    return all(task.status.is_terminal for task in await chat.session.tasks())


async def test_what_is_said_meanwhile_waits_or_interrupts(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(say("one", pause=0.1), say("two"), hang("a long "), say("stop it is"))
    async with chatting(hermes) as chat:
        first, second = chat.say("1"), chat.say("2")
        assert (await first, await second) == ("one", "two")
        long = chat.say("3")
        await wait_until_async(lambda: long.text)
        assert await chat.say("stop", on_busy="interrupt") == "stop it is"
        assert await long == "a long "
    assert model.requests[-1].said("user") == ["1", "2", "3", "stop"]


async def test_an_interrupt_before_the_first_word(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(say("never").but(delay=30), say("yes"))
    async with chatting(hermes) as chat:
        assert not chat.interrupt()
        turn = chat.say("1")
        await wait_until_async(lambda: model.requests)
        assert chat.interrupt()
        assert await turn == ""
        assert await chat.say("2") == "yes"
    assert model.requests[1].said("assistant") == ["[interrupted]"]


async def test_an_interrupt_at_any_moment_ends_the_turn_and_loses_nothing(
    hermes: Hermes, model: ScriptedModel, tmp_path: Path
) -> None:
    """Also before the model is asked, and while what was said is being written."""
    model._script = lambda request: say("one ", "two ", "three", pause=0.005)
    said = []
    async with chatting(hermes, folder=tmp_path) as chat:
        for number in range(40):
            said.append(f"message {number}")
            turn = chat.say(said[-1])
            await asyncio.sleep(number * 0.001)
            chat.interrupt()
            async with asyncio.timeout(10):
                await turn.ended()
        assert await chat.say("last") == "one two three"
    heard = "\n".join(model.requests[-1].said("user"))
    assert [text for text in said if text not in heard] == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (status(401), r"\(HTTP 401\) refuses the key: check"),
        (status(404), r"\(HTTP 404\) is not there \(scripted 404\): check `model` and `base_url`"),
        (status(400), r"\(HTTP 400\) refuses the request \(scripted 400\)"),
        (status(429, retry_after="600"), r"\(HTTP 429\) is busy"),
        (raw("<html>Hello", "text/html"), "gives no answer of use .*: check `model` and `base_url`"),
        (raw("data: {oops\n\n"), "Failed to decode response as JSON"),
    ],
)
async def test_a_fault_is_one_sentence_and_nothing_said_is_lost(
    hermes: Hermes, model: ScriptedModel, fault: Any, sentence: str
) -> None:
    model.then(fault, say("here I am"))
    async with chatting(hermes) as chat:
        with pytest.raises(TurnFailed, match=sentence) as caught:
            await chat.say("hello")
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"model 'scripted-model' at {model.url} ")
        assert (chat.unanswered, chat.has_failed) == ("hello", True)
        again = chat.again()
        assert again is not None
        assert await again == "here I am"
        assert (chat.unanswered, chat.has_failed, chat.again()) == (None, False, None)
    assert model.requests[1].said("user") == ["hello"]


async def test_what_was_not_answered_goes_with_what_is_said_next(
    hermes: Hermes, model: ScriptedModel
) -> None:
    model.then(status(401), say("both"))
    async with chatting(hermes) as chat:
        with pytest.raises(TurnFailed):
            await chat.say("hello")
        assert await chat.say("you there?") == "both"
    assert model.requests[1].said("user") == ["hello\n\nyou there?"]


@pytest.mark.parametrize("fault", [status(429, retry_after="1"), status(503, retry_after="1")])
async def test_a_model_that_says_when_is_asked_again_by_itself(
    hermes: Hermes, model: ScriptedModel, fault: Any
) -> None:
    model.then(fault, say("now"))
    async with chatting(hermes) as chat:
        turn = chat.say("hello")
        with pytest.raises(TurnFailed):
            await turn
        assert turn.end is not None and turn.end.again_in == 1.0
        assert chat.is_busy and not chat.has_failed
        await rest(chat)
        assert chat.last_answer == "now"


async def test_nobody_there(hermes: Hermes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1?key=secret")
    monkeypatch.setattr("hermes_async.chat.faults.FIRST_WAIT", 0.01)
    why = r"^model 'scripted-model' at http://127.0.0.1:9/v1 cannot be reached \(Connection refused\): check"
    async with chatting(hermes) as chat:
        pieces = chat.pieces()
        with pytest.raises(TurnFailed, match=why):
            await chat.say("hello")
        await wait_until_async(lambda: chat.has_failed and not chat.is_busy)
        turn = chat.again()
        assert turn is not None
        with pytest.raises(TurnFailed, match=why):  # whoever asks is told all of it
            await turn
        ends = [each for each in [await anext(pieces) for _ in range(10)] if isinstance(each, TurnEnded)]
    assert [(end.error == STILL, end.again_in) for end in ends] == [
        (False, 0.01),
        (True, 0.02),
        (True, 0.04),
        (True, None),
        (False, None),
    ]


async def test_a_connection_that_breaks_in_an_answer(hermes: Hermes, model: ScriptedModel) -> None:
    model.then(broken("half an ans"), say("a whole answer"))
    async with chatting(hermes) as chat:
        with pytest.raises(TurnFailed):
            await chat.say("hello")
        assert await chat.again() == "a whole answer"
    assert model.requests[1].said("assistant") == []


async def test_a_fault_after_a_delegation_does_not_delegate_twice(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    model.then(call("delegate", subagent="research", input="chips"), status(500), say("under way"))
    async with chatting(hermes) as chat:
        with pytest.raises(TurnFailed, match="has failed"):
            await chat.say("go")
        assert chat.unanswered is None
        assert await chat.again() == "under way"
        assert len(await chat.session.tasks()) == 1


async def test_news_wait_while_the_model_is_away(hermes: Hermes, model: ScriptedModel, gates: Gates) -> None:
    model.then(call("delegate", subagent="research", input="chips"), say("ok"), status(401), say("done"))
    async with chatting(hermes) as chat:
        await chat.say("go")
        gates["chips"].set()
        await wait_until_async(lambda: chat.has_failed)
        assert await chat.session.unread() == 1
        assert await chat.again() == "done"
        assert await chat.session.unread() == 0
    assert "chips: done" in model.requests[3].last


async def test_news_that_the_conversation_has_are_not_told_again_when_the_turn_goes_on(
    hermes: Hermes, model: ScriptedModel, gates: Gates
) -> None:
    gates["chips"].set()
    model.then(call("delegate", subagent="research", input="chips"), say("ok"))
    model.then(call("list"), status(401), say("done"))
    async with chatting(hermes) as chat:
        await chat.say("go")
        await wait_until_async(lambda: chat.has_failed)
        assert await chat.session.unread() == 1
        assert await chat.again() == "done"
        assert await chat.session.unread() == 0
    assert sum("chips: done" in text for text in model.requests[-1].said("user")) == 1


async def test_who_cannot_chat_is_told_why(hermes: Hermes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownAgent, match="did you mean 'parent'"):
        ChatParent(hermes, "parnt")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        ChatParent(hermes, "parent")


async def test_nothing_is_not_said(hermes: Hermes, model: ScriptedModel) -> None:
    async with chatting(hermes) as chat:
        with pytest.raises(InvalidInput, match="nothing was said"):
            chat.say(" \n")
