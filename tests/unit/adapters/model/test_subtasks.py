"""Declared agents that delegate to others: their model has the six tools, and its run waits for the news."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hermes_async.adapters.agents_file import parse
from hermes_async.adapters.model.subtasks import check_names
from hermes_async.core.delegation import IN_A_TASK, NAMES
from hermes_async.core.hermes import Hermes
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec, GateLimits, RunLimits, SubagentSpec
from hermes_async.domain.errors import ConfigError, TaskCancelled, TaskFailed
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import TaskStatus
from hermes_async.sdk import TaskContext
from hermes_async.testing import LocalHermes
from tests.support.model import Reply, Request, ScriptedModel, call, calls, say, status
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def measure(ctx: TaskContext, package: str, seconds: float = 0.0) -> str:
    """Measure a package."""
    await asyncio.sleep(seconds)
    return f"{package} has {len(package)} letters"


@subagent
async def asks(ctx: TaskContext) -> str:
    """Ask for a colour."""
    return f"painted {await ctx.ask('which colour?', schema=str)}"


@asynccontextmanager
async def start(
    model: ScriptedModel, *uses: dict[str, Any], slots: int = 100, **agent: Any
) -> AsyncIterator[Hermes]:
    """A Hermes with an agent `lead` that the scripted model runs, and that has subagents."""
    named = uses or ({"id": "size", "agent": "measure"}, {"id": "paint", "agent": "asks"})
    subagents = tuple(SubagentSpec.model_validate(each) for each in named)
    lead = AgentSpec(model="gpt-4o-mini", base_url=model.url, subagents=subagents, **agent)
    config = AgentsConfig(agents={"lead": lead}, limits=GateLimits(max_running=slots))
    async with LocalHermes(measure, asks, config=config, slots=slots) as hermes:
        yield hermes


async def run(hermes: Hermes, prompt: str = "Go on.") -> Any:
    return await asyncio.wait_for(await hermes.session("chat").dispatch("lead", prompt), 20)


def news(request: Request) -> list[dict[str, Any]]:
    first, _, *lines, last = request.last.splitlines()
    assert (first, last, request.messages[-1]["role"]) == ("<subagent_news>", "</subagent_news>", "user")
    return [json.loads(line) for line in lines]


async def test_the_model_delegates_and_its_result_comes_after_the_news(
    scripted: ScriptedModel,
) -> None:
    scripted.then(
        calls(
            ("delegate", {"subagent": "size", "input": "click"}),
            ("delegate", {"subagent": "size", "input": {"package": "kombu", "seconds": 0.6}}),
        ),
        say("Both are being measured."),
        say("The first is there."),
        say("5 and 5."),
    )
    async with start(scripted, instructions="Measure.") as hermes:
        assert await run(hermes) == "5 and 5."
        tasks = await hermes.session("chat").tasks()
    first, started, told, last = scripted.requests
    assert tuple(first.tools) == NAMES
    assert "\n\n".join(first.said("system")) == f"Measure.\n\n{IN_A_TASK}"
    size = first.body["tools"][0]["function"]["parameters"]["properties"]["subagent"]
    assert size["enum"] == ["size", "paint"]
    ids = [json.loads(text)["task_id"] for text in started.said("tool")]
    assert [(one["news"], one["task_id"], one["output"]) for one in [*news(told), *news(last)]] == [
        ("completed", ids[0], "click has 5 letters"),
        ("completed", ids[1], "kombu has 5 letters"),
    ]
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}


async def test_one_slot_is_enough_for_it_and_those_that_it_waits_for(
    scripted: ScriptedModel,
) -> None:
    scripted.then(
        calls(*[("delegate", {"subagent": "size", "input": "x" * n}) for n in (1, 2, 3)]),
        say("Wait."),
    )
    scripted.then(*[say("Done.")] * 3)
    async with start(scripted, slots=1) as hermes:
        assert await run(hermes) == "Done."


async def test_a_question_of_a_child_is_answered_by_the_model() -> None:
    def script(request: Request) -> Reply:
        if "<subagent_news>" in request.last:
            (one,) = news(request)
            if one["news"] == "completed":
                return say(one["output"])
            return call("answer", task_id=one["task_id"], text="blue", question_id=one["question_id"])
        if len(request.messages) < 4:
            return call("delegate", subagent="paint", input="")
        return say("We shall see.")

    with ScriptedModel(script=script) as model:
        async with start(model) as hermes:
            assert await run(hermes) == "painted blue"


async def test_a_subagent_that_is_not_async_answers_within_the_tool(
    scripted: ScriptedModel,
) -> None:
    scripted.then(call("delegate", subagent="size", input="click"), say("5."))
    async with start(scripted, {"id": "size", "agent": "measure", "async": False}, slots=1) as hermes:
        assert await run(hermes) == "5."
    assert json.loads(scripted.requests[-1].last)["output"] == "click has 5 letters"


async def test_a_cancel_reaches_those_that_it_waits_for(scripted: ScriptedModel) -> None:
    scripted.then(
        call("delegate", subagent="size", input={"package": "click", "seconds": 60}), say("I wait.")
    )
    async with start(scripted) as hermes:
        session = hermes.session("chat")
        handle = await session.dispatch("lead", "Go on.")
        await wait_until_async(lambda: len(scripted.requests) == 2)
        await handle.cancel()
        with pytest.raises(TaskCancelled):
            await asyncio.wait_for(handle, 10)
        await wait_until_async(lambda: _all_cancelled(session))


async def _all_cancelled(session: Any) -> bool:
    return {task.status for task in await session.tasks()} == {TaskStatus.CANCELLED}


async def test_a_limit_of_depth_is_a_sentence_for_the_model() -> None:
    def script(request: Request) -> Reply:
        if request.messages[-1]["role"] == "tool":
            return say(json.loads(request.last).get("error", "started"))
        if "<subagent_news>" in request.last:
            return say(news(request)[0]["output"])
        return call("delegate", subagent="lead", input="Deeper.")

    with ScriptedModel(script=script) as model:
        async with start(model, {"id": "lead", "agent": "lead"}) as hermes:
            assert "do the work yourself" in await run(hermes)


async def test_its_budget_ends_it_while_it_delegates(scripted: ScriptedModel) -> None:
    scripted.then(
        call("delegate", subagent="size", input={"package": "x", "seconds": 60}), call("list", status=None)
    )
    async with start(scripted, limits=RunLimits(requests=2)) as hermes:
        with pytest.raises(TaskFailed) as failed:
            await run(hermes)
        assert failed.value.reason is Reason.BUDGET_EXCEEDED
        session = hermes.session("chat")
        await wait_until_async(lambda: _is_stopped(session))


async def _is_stopped(session: Any) -> bool:
    states = {task.birth.subagent: task.status for task in await session.tasks()}
    return states == {"lead": TaskStatus.FAILED, "size": TaskStatus.CANCELLED}


TREE = """
version: "2.4"
agents:
  boss:
    type: conversational
    subagents: [{{id: lead, fallback: "openai-chat:second"}}]
  lead:
    model: first
    base_url: {url}
    subagents: [{{id: size, agent: size, fallback: "openai-chat:third"}}]
  size:
    model: first
    base_url: {url}
"""


async def test_another_model_takes_over_what_the_first_may_delegate() -> None:
    def script(request: Request) -> Reply:
        if request.model == "first":
            return status(401)
        if request.model == "third":
            return say("5 letters")
        if "<subagent_news>" in request.last:
            return say(news(request)[0]["output"])
        return say("Wait.") if request.said("tool") else call("delegate", subagent="size", input="click")

    with ScriptedModel(script=script) as model:
        config = parse(TREE.format(url=model.url), "agents.yaml", {})
        async with LocalHermes(config=config) as hermes:
            handle = await hermes.session("chat", parent="boss").dispatch("lead", "Go on.")
            assert await asyncio.wait_for(handle, 20) == "5 letters"
    offered = next(one for one in model.requests if one.model == "second").body["tools"][0]["function"]
    assert offered["parameters"]["properties"]["subagent"]["enum"] == ["size"]


async def test_an_agent_without_subagents_has_none_of_the_tools(scripted: ScriptedModel) -> None:
    scripted.then(say("."))
    config = AgentsConfig(agents={"lead": AgentSpec(model="gpt-4o-mini", base_url=scripted.url)})
    async with LocalHermes(config=config) as hermes:
        await run(hermes)
    assert scripted.requests[0].tools == []


def test_a_tool_of_the_same_name_is_refused() -> None:
    spec = AgentSpec(model="m", subagents=(SubagentSpec(id="size", agent="measure"),))
    check_names(spec, ["capital"])
    check_names(AgentSpec(model="m"), ["check"])
    with pytest.raises(ConfigError, match="its tool 'check' has a name of those with which it delegates"):
        check_names(spec, ["capital", "check"])
