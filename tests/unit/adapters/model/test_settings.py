"""How a model answers, as agents.yaml says it: what comes of that on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai.settings import ModelSettings as TheirSettings

from hermes_async import TaskContext, subagent
from hermes_async.adapters.agents_file import parse
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec
from hermes_async.domain.errors import ConfigError
from hermes_async.domain.model_settings import ModelSettings
from hermes_async.testing import LocalHermes
from tests.support.model import ScriptedModel, say, status
from tests.support.thinking import Start, dispatched
from tests.unit.chat.conftest import chatting

pytestmark = pytest.mark.anyio

NAMES = {"temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "presence_penalty"}


def sent(scripted: ScriptedModel, at: int = -1) -> dict[str, Any]:
    return {name: value for name, value in scripted.requests[at].body.items() if name in NAMES}


def test_pydantic_ai_knows_them_all() -> None:
    assert set(ModelSettings.model_fields) < set(TheirSettings.__annotations__)


async def test_an_agent_says_how_its_model_answers(start: Start, scripted: ScriptedModel) -> None:
    settings = ModelSettings(
        temperature=0.2, max_tokens=100, seed=7, stop_sequences=("END",), presence_penalty=-1
    )
    scripted.then(say("So."))
    async with start(settings=settings) as hermes:
        assert await (await dispatched(hermes, "Is it?")) == "So."
    wanted = {"temperature": 0.2, "seed": 7, "stop": ["END"], "presence_penalty": -1}
    assert sent(scripted) == {**wanted, "max_completion_tokens": 100}


async def test_a_use_of_it_says_more(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("So."))
    use = {"settings": {"temperature": None, "top_p": 0.5}}
    async with start(use, settings=ModelSettings(temperature=0.2, max_tokens=100)) as hermes:
        handle = await dispatched(hermes, "Is it?")
        await handle
        assert (await handle.task()).birth.options.settings.said() == {"top_p": 0.5}
    assert sent(scripted) == {"max_completion_tokens": 100, "top_p": 0.5}


async def test_a_fallback_has_its_own(scripted: ScriptedModel) -> None:
    scripted.then(status(401), say("So."))
    use = SubagentSpec(
        id="one", agent="one", fallback="two", model="big", settings=ModelSettings(temperature=1.5)
    )
    agents = {
        "boss": AgentSpec(type="conversational", subagents=(use,)),
        "one": AgentSpec(model="small", base_url=scripted.url),
        "two": AgentSpec(model="other", base_url=scripted.url, settings=ModelSettings(max_tokens=9)),
    }
    async with LocalHermes(config=AgentsConfig(agents=agents)) as hermes:
        assert await (await hermes.session("chat", parent="boss").dispatch("one", "Is it?")) == "So."
    assert [request.model for request in scripted.requests] == ["big", "other"]
    assert (sent(scripted, 0), sent(scripted, 1)) == ({"temperature": 1.5}, {"max_completion_tokens": 9})


async def test_a_conversation_says_it_too(scripted: ScriptedModel) -> None:
    scripted.then(say("So."))
    settings = ModelSettings(temperature=0.0)
    parent = AgentSpec(type="conversational", model="small", base_url=scripted.url, settings=settings)
    config = AgentsConfig(agents={"parent": parent})
    async with LocalHermes(config=config) as hermes, chatting(hermes) as chat:
        assert await chat.say("Is it?") == "So."
    assert sent(scripted) == {"temperature": 0.0}


async def test_a_python_agent_finds_those_of_its_use() -> None:
    @subagent
    async def thinks(ctx: TaskContext) -> dict[str, Any]:
        return ctx.model_settings.said()

    use = SubagentSpec(id="thinks", agent="thinks", settings=ModelSettings(thinking="high"))
    config = AgentsConfig(agents={"boss": AgentSpec(type="conversational", subagents=(use,))})
    async with LocalHermes(thinks, config=config) as hermes:
        assert await (await hermes.session("chat", parent="boss").dispatch("thinks")) == {"thinking": "high"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("{temprature: 1}", "unknown key 'temprature' in settings; did you mean 'temperature'?"),
        ("{temperature: 3}", "settings.temperature must be a number from 0 to 2, not 3"),
        ("{top_p: high}", 'settings.top_p must be a number from 0 to 1, not "high"'),
        ("{max_tokens: 0}", "settings.max_tokens must be a whole number greater than 0, not 0"),
        (
            "{thinking: hihg}",
            "settings.thinking must be true, false, or one of minimal, low, medium, high, xhigh, max; "
            "did you mean 'high'?",
        ),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "agents: {a: {model: x, settings: %s}}",
        "agents: {a: {model: x}, b: {subagents: [{id: a, settings: %s}]}}",
    ],
)
def test_what_none_of_them_is_has_a_sentence(text: str, settings: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text % settings, "agents.yaml", {})
    assert str(caught.value).partition(": ")[2] == sentence


def test_variables_say_them_too() -> None:
    environ = {
        "HERMES_AGENTS__A__SETTINGS__THINKING": "low",
        "HERMES_AGENTS__A__SETTINGS__TEMPERATURE": "0.5",
        "CACHE": "true",
    }
    found = parse("agents: {a: {model: x, settings: {cache: '${CACHE}'}}}", "agents.yaml", environ)
    assert found.agents["a"].settings.said() == {"thinking": "low", "temperature": 0.5, "cache": True}
