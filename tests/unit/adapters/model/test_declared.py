"""Declared agents as agents of a registry: what they are asked, whose model they have, what they need."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from hermes_async import TaskFailed
from hermes_async.adapters.agents_file import load
from hermes_async.adapters.model.declared import DeclaredAgents, description
from hermes_async.bootstrap import registry
from hermes_async.domain.agent import AgentsConfig, AgentSpec
from hermes_async.domain.errors import ConfigError
from hermes_async.settings import Settings
from hermes_async.testing import LocalHermes
from tests.support.model import Reply, Request, ScriptedModel, say, status
from tests.support.thinking import Start, dispatched, told

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("args", "named", "asked"),
    [
        (("chips",), {}, "chips"),
        ((), {"input": "chips"}, "chips"),
        ((), {"topic": "chips", "depth": 2}, "topic: chips\ndepth: 2"),
        (("Weigh it.",), {"sources": ["a", "b"]}, 'Weigh it.\n\nsources: ["a", "b"]'),
    ],
)
async def test_a_text_or_named_values_are_what_it_is_asked(
    start: Start, scripted: ScriptedModel, args: Any, named: Any, asked: str
) -> None:
    scripted.then(say("."))
    async with start() as hermes:
        await (await dispatched(hermes, *args, **named))
    assert scripted.requests[0].last == asked


async def test_without_anything_to_do_it_fails_at_once(start: Start, scripted: ScriptedModel) -> None:
    async with start({"retry_limit": 2}) as hermes:
        with pytest.raises(TaskFailed, match="research has nothing to do: give it an `input`"):
            await (await dispatched(hermes))
    assert scripted.requests == []


async def test_a_subagents_model_wins(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("."))
    async with start({"model": "other"}) as hermes:
        await (await dispatched(hermes, "Go."))
    assert scripted.requests[0].model == "other"


async def test_an_agent_without_a_model_of_its_own_is_run_as_its_parent_says(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(say("."))
    async with start({"model": "other"}, model=None) as hermes:
        await (await dispatched(hermes, "Go."))
        with pytest.raises(ConfigError, match="agent 'research': it has no model of its own"):
            await hermes.session("chat").dispatch("research", "Go.")
    assert [request.model for request in scripted.requests] == ["other"]


async def test_another_model_takes_over_in_the_same_task(scripted: ScriptedModel, tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return say("I can.") if request.model == "gpt-4o" else status(500)

    with ScriptedModel(script=answer) as model:
        file = tmp_path / "agents.yaml"
        file.write_text(
            "agents:\n"
            "  boss:\n"
            "    type: conversational\n"
            "    subagents:\n"
            "      - {id: research, model: tiny, fallback: 'openai:gpt-4o',\n"
            "         retry_limit: 1, retry: {initial: 0.01}}\n"
            f"  research_agent: {{base_url: '{model.url}'}}\n"
        )
        async with LocalHermes(config=load(file, {})) as hermes:
            handle = await dispatched(hermes, "Go.")
            assert await handle == "I can."
            task = await handle.task()
            retried = await told(handle, "task.retrying")
    assert (task.agent, task.attempt) == ("research_agent.openai-gpt-4o", 3)
    assert [data.agent for data in retried] == [None, "research_agent.openai-gpt-4o"]
    assert {request.model for request in model.requests} == {"tiny", "gpt-4o"}


async def test_connections_are_shared_and_closed_at_the_end(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(*[say("It is so.")] * 6)
    async with start() as hermes:
        for _ in range(6):
            await (await dispatched(hermes, "Go."))
        assert len(connected(scripted.port)) == 1
    assert connected(scripted.port) == []
    gc.collect()  # a ResourceWarning would be an error


def connected(port: int) -> list[Any]:
    return [
        each
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    ]


async def test_a_model_of_a_test_may_stand_in() -> None:
    from pydantic_ai.models.function import AgentInfo, FunctionModel
    from pydantic_ai.models.test import TestModel

    async def stream(_: Any, __: AgentInfo) -> AsyncIterator[str]:
        yield "by "
        yield "function"

    config = AgentsConfig(agents={"a": AgentSpec(model="none"), "b": AgentSpec(model="none")})
    models = {"a": TestModel(custom_output_text="by test"), "b": FunctionModel(stream_function=stream)}
    async with LocalHermes(config=config, models=models) as hermes:
        assert await (await hermes.session("s").dispatch("a", "Go.")) == "by test"
        assert await (await hermes.session("s").dispatch("b", "Go.")) == "by function"


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        (AgentSpec(name="a", description="Finds."), "Finds."),
        (AgentSpec(name="a", instructions="Find\nsources.\n\nBe brief."), "Find\nsources."),
        (AgentSpec(name="a", tools=("one", "two")), "A task agent with the tools one, two."),
    ],
)
def test_what_a_parents_model_reads(spec: AgentSpec, read: str) -> None:
    assert description(spec) == read
    assert DeclaredAgents(lambda names: {})(spec).description == read


def test_dispatching_imports_no_pydantic_ai() -> None:
    program = (
        "import asyncio, sys\n"
        "from hermes_async.adapters.model.declared import DeclaredAgents\n"
        "from hermes_async.core.registry import Registry\n"
        "from hermes_async.domain.agent import AgentsConfig, AgentSpec\n"
        "config = AgentsConfig(agents={'a': AgentSpec(model='gpt-4o-mini')})\n"
        "known = Registry(config, (), DeclaredAgents(lambda names: {}, has_workers=True))\n"
        "agent = known.resolve('a', None)\n"
        "agent.needs.admit(agent.spec)\n"
        "print(agent.signature.bind_text('chips'), 'pydantic_ai' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"OPENAI_API_KEY": "k"},
        check=True,
    )
    assert done.stdout == "{'input': 'chips'} False\n"


@pytest.mark.parametrize("has_workers", [True, False])
def test_a_dispatch_is_refused_only_where_the_workers_have_no_more_than_we(has_workers: bool) -> None:
    spec = AgentSpec(name="a", model="gpt-4o-mini")
    agent = DeclaredAgents(lambda names: {}, has_workers=has_workers)(spec)
    assert agent.needs is not None
    refused = pytest.raises(ConfigError, match="agent 'a': model 'gpt-4o-mini' needs a key")
    with refused if has_workers else nullcontext():
        agent.needs.admit(agent.spec)
    with pytest.raises(ConfigError, match="needs a key"):
        agent.needs.check(agent.spec)


@pytest.mark.parametrize(
    ("queue", "refused"),
    [(None, True), ("redis://localhost:6379/0", True), ("redis://redis.default:6379/0", False)],
)
def test_workers_of_a_broker_on_this_machine_have_its_environment(queue: str | None, refused: bool) -> None:
    agents = AgentsConfig(agents={"a": AgentSpec(model="gpt-4o-mini")}, task_queue=queue)
    known = registry(Settings.read(agents=agents, environ={}))
    agent = known.agent("a")
    assert agent.needs is not None
    with pytest.raises(ConfigError, match="needs a key") if refused else nullcontext():
        agent.needs.admit(agent.spec)
