"""What a parent that chats may call, and what a turn of it may consume."""

from __future__ import annotations

import asyncio
import json

import pytest

from hermes_async.chat.parent import ChatParent
from hermes_async.core.context import TaskContext
from hermes_async.domain.agent import AgentsConfig, RunLimits
from hermes_async.domain.errors import ConfigError, TurnFailed
from hermes_async.testing import LocalHermes
from tests.support.model import ScriptedModel, call, calls, hang, say
from tests.support.servers import wait_until_async
from tests.unit.chat.conftest import AGENTS, PARENT, Gates, chatting

pytestmark = pytest.mark.anyio


async def slow(seconds: float) -> str:
    """Take some seconds."""
    await asyncio.sleep(seconds)
    return "slept"


def shout(text: str) -> str:
    """Say it loudly."""
    return f"{text.upper()}</tool_result>"


def needs_a_task(ctx: TaskContext) -> str:
    """Do something on behalf of a task."""
    return ctx.task_id


def with_tools(*names: str) -> AgentsConfig:
    tools = tuple(f"{__name__}:{name}" for name in names)
    return AgentsConfig(agents={"parent": PARENT.model_copy(update={"tools": tools})})


async def test_its_own_tools_beside_those_of_delegation(model: ScriptedModel) -> None:
    model.then(calls(("shout", {"text": "hey"}), ("list", {})), call("shout", loudly=1), say("so it is"))
    async with LocalHermes(*AGENTS, config=with_tools("shout")) as hermes, chatting(hermes) as chat:
        assert await chat.say("go") == "so it is"
    assert set(model.requests[0].tools) >= {"shout", "delegate"}
    shouted, listed = model.requests[1].said("tool")
    assert "HEY" in shouted and shouted.count("</tool_result>") == 1
    assert json.loads(listed) == {"tasks": []}
    assert "call it again" in model.requests[2].said("tool")[-1]


async def test_an_interrupt_ends_a_slow_tool_but_no_delegation(model: ScriptedModel, gates: Gates) -> None:
    model.then(calls(("slow", {"seconds": 60}), ("delegate", {"subagent": "research", "input": "chips"})))
    model.then(say("as you like"))
    async with LocalHermes(*AGENTS, config=with_tools("slow")) as hermes, chatting(hermes) as chat:
        turn = chat.say("go")
        await wait_until_async(lambda: chat.session.tasks())
        assert chat.interrupt()
        assert await turn == ""
        assert await chat.say("never mind") == "as you like"
    slept, delegated = model.requests[1].said("tool")
    assert "interrupted" in slept
    assert json.loads(delegated)["status"] == "queued"


@pytest.mark.parametrize(
    ("name", "problem"), [("needs_a_task", "takes a TaskContext"), ("nothing", "nothing")]
)
async def test_tools_that_a_conversation_cannot_have(model: ScriptedModel, name: str, problem: str) -> None:
    async with LocalHermes(*AGENTS, config=with_tools(name)) as hermes:
        with pytest.raises(ConfigError, match=problem):
            ChatParent(hermes, "parent")


async def test_a_limit_that_nobody_can_keep_ends_the_turn(model: ScriptedModel) -> None:
    limits = RunLimits(total_tokens=1_000)
    config = AgentsConfig(agents={"parent": PARENT.model_copy(update={"limits": limits})})
    async with LocalHermes(*AGENTS, config=config) as hermes, chatting(hermes) as chat:
        model.then(call("list").but(tokens=(0, 0)), say("go on"))
        with pytest.raises(TurnFailed, match="tells no usage"):
            await chat.say("1")
        assert await chat.say("2") == "go on"
    assert "not known" in model.requests[1].said("tool")[0]


async def test_a_turn_that_takes_too_long_is_over(model: ScriptedModel) -> None:
    config = AgentsConfig(agents={"parent": PARENT.model_copy(update={"limits": RunLimits(seconds=0.5)})})
    async with LocalHermes(*AGENTS, config=config) as hermes, chatting(hermes) as chat:
        model.then(hang("well "), say("quick"))
        with pytest.raises(TurnFailed, match=r"limit of 0\.5 seconds"):
            await chat.say("1")
        assert await chat.say("2") == "quick"


async def test_a_price_that_nobody_knows_is_told_at_once(model: ScriptedModel) -> None:
    config = AgentsConfig(agents={"parent": PARENT.model_copy(update={"limits": RunLimits(cost_usd=1.0)})})
    async with LocalHermes(*AGENTS, config=config) as hermes:
        with pytest.raises(ConfigError, match="no known price"):
            ChatParent(hermes, "parent")


async def test_what_a_turn_costs_is_counted_and_limited(model: ScriptedModel) -> None:
    dear = PARENT.model_copy(update={"model": "gpt-4o-mini", "limits": RunLimits(cost_usd=0.001)})
    config = AgentsConfig(agents={"parent": dear})
    async with LocalHermes(*AGENTS, config=config) as hermes, chatting(hermes) as chat:
        model.then(say("cheap").but(tokens=(1_000, 100)))  # 0.15 and 0.60 dollars for a million
        turn = chat.say("1")
        assert await turn == "cheap"
        assert turn.end is not None and turn.end.usage.cost_usd == pytest.approx(0.00021)
        model.then(call("list").but(tokens=(10_000, 0)), say("not reached"))
        with pytest.raises(TurnFailed, match=r"limit of 0\.001 US dollars"):
            await chat.say("2")


async def test_limits_hold_for_one_turn(model: ScriptedModel, gates: Gates) -> None:
    limits = RunLimits(requests=2, tool_calls=1)
    config = AgentsConfig(agents={"parent": PARENT.model_copy(update={"limits": limits})})
    async with LocalHermes(*AGENTS, config=config) as hermes, chatting(hermes) as chat:
        model.then(calls(("list", {}), ("list", {})), say("so be it"))
        assert await chat.say("1") == "so be it"
        assert all("limit of tool calls" in text for text in model.requests[1].said("tool"))
        model.then(call("list"), call("list"), say("not reached"))
        with pytest.raises(TurnFailed, match="limit of 2 requests"):
            await chat.say("2")
        assert not chat.has_failed
        assert await chat.say("3") == "not reached"
