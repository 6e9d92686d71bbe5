"""The six tools in the hands of a pydantic-ai agent, whose model makes mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_ai import Agent

from hermes_async.adapters.model.names import model_for
from hermes_async.core.delegation import Delegation
from hermes_async.sdk import TaskContext, subagent
from hermes_async.testing import LocalHermes
from tests.support.model import ScriptedModel, call, calls, say

pytestmark = pytest.mark.anyio


@subagent
async def survey(ctx: TaskContext, package: str, kind: str = "fast") -> dict[str, str]:
    """Measure a package."""
    return {"package": package, "kind": kind}


async def test_a_model_that_errs_is_told_so_and_its_turn_goes_on() -> None:
    wrong = call("delegate", subagent="surwey", input="click")
    replies = (
        *[wrong] * 4,  # as often as it likes: none of these is a fault that ends its run
        call("check", task_id="t07-00000000000000000000000000"),
        call("delegate", subagent="survey", input={"pakage": "click"}),
        calls(
            ("delegate", {"subagent": "survey", "input": {"package": "click", "kind": "full"}}),
            ("delegate", {"subagent": "survey", "input": "kombu"}),
        ),
        say("Both are on their way."),
    )
    with ScriptedModel(*replies) as model:
        async with LocalHermes(survey) as hermes:
            session = hermes.session("chat")
            tools = Delegation(session)
            agent = Agent(model_for("gpt-4o-mini", model.url), tools=tools.functions)
            async with agent:
                turn = await agent.run("Measure click and kombu.")
            tasks = await session.tasks()
    assert turn.output == "Both are on their way."
    told: list[Any] = [json.loads(text) for text in model.requests[-1].said("tool")]
    assert [one["error"] for one in told[:4]] == ["no agent 'surwey'; did you mean 'survey'?"] * 4
    assert "no task of that id" in told[4]["error"]
    assert "survey: missing a required argument" in told[5]["error"]
    assert {one["task_id"] for one in told[6:]} == {task.id for task in tasks}
    inputs = sorted((task.birth.input for task in tasks), key=str)
    assert inputs == [{"package": "click", "kind": "full"}, {"package": "kombu"}]
