"""A key for each agent: it reaches its own server, and nobody else sees it."""

from __future__ import annotations

import logging

import pytest

from hermes_async.adapters.agents_file import parse
from hermes_async.adapters.model.names import check_model, model_for
from hermes_async.domain.agent import AgentsConfig, AgentSpec
from hermes_async.domain.errors import ConfigError, TaskFailed, TurnFailed
from hermes_async.testing import LocalHermes
from tests.support.model import Reply, ScriptedModel, say
from tests.unit.chat.conftest import chatting

pytestmark = pytest.mark.anyio

ONE, TWO = "sk-first-hush", "sk-second-hush"


def keys(model: ScriptedModel) -> list[str]:
    return [request.headers["Authorization"].removeprefix("Bearer ") for request in model.requests]


async def test_two_servers_with_two_keys_in_one_worker(
    scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    scripted.script(lambda request: say("So."))
    with ScriptedModel(script=lambda request: say("So.")) as other:
        agents = {
            "one": AgentSpec(model="m", base_url=scripted.url, api_key=ONE),
            "two": AgentSpec(model="m", base_url=other.url, api_key=TWO),
            "three": AgentSpec(model="m", base_url=scripted.url, api_key=TWO),
            "four": AgentSpec(model="m", base_url=scripted.url),
        }
        async with LocalHermes(config=AgentsConfig(agents=agents)) as hermes:
            session = hermes.session("chat")
            for name in agents:
                handle = await session.dispatch(name, "Is it?")
                assert await handle == "So."
                assert "hush" not in (await handle.task()).model_dump_json()
    assert keys(scripted) == [ONE, TWO, "sk-of-the-environment"]
    assert keys(other) == [TWO]


async def test_a_conversation_has_one_too(scripted: ScriptedModel) -> None:
    scripted.then(say("So."))
    parent = AgentSpec(type="conversational", model="m", base_url=scripted.url, api_key=ONE)
    config = AgentsConfig(agents={"parent": parent})
    async with LocalHermes(config=config) as hermes, chatting(hermes) as chat:
        assert await chat.say("Is it?") == "So."
    assert keys(scripted) == [ONE]


async def test_a_server_that_says_the_key_again_is_not_quoted(
    scripted: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scripted.script(lambda request: Reply(status=401, message=f"{ONE} is not valid"))
    server = {"model": "m", "base_url": scripted.url, "api_key": ONE}
    agents = {"parent": AgentSpec(type="conversational", **server), "one": AgentSpec(**server)}  # type: ignore[arg-type]
    async with LocalHermes(config=AgentsConfig(agents=agents)) as hermes:
        with pytest.raises(TaskFailed, match="refuses the key") as failed:
            await (await hermes.session("other").dispatch("one", "Is it?"))
        async with chatting(hermes) as chat:
            with pytest.raises(TurnFailed, match=r"\(HTTP 401\) refuses the key: check") as ended:
                await chat.say("Is it?")
    assert "hush" not in f"{failed.value} {ended.value}"
    assert "hush" not in "".join(
        each.getMessage() for each in caplog.records if each.name.startswith("hermes")
    )


def test_it_is_in_no_repr_and_in_no_dump() -> None:
    agent = AgentSpec(model="m", api_key=ONE)
    config = AgentsConfig(agents={"one": agent})
    assert config.agents["one"].api_key == ONE
    assert "hush" not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


@pytest.mark.parametrize(
    ("own", "model", "stays"),
    [
        ("gpt-4o", "gpt-4o-mini", True),
        ("gpt-4o", "openai:gpt-4o-mini", True),
        ("openai-responses:gpt-4o", "openai-chat:gpt-4o-mini", True),
        (None, "anthropic:claude", True),
        ("gpt-4o", "anthropic:claude", False),
        ("anthropic:claude", "gpt-4o", False),
    ],
)
def test_a_model_of_another_provider_gets_neither_server_nor_key(
    own: str | None, model: str, stays: bool
) -> None:
    agent = AgentSpec(model=own, base_url="http://localhost:1/v1", api_key=ONE).with_model(model)
    assert agent.model == model
    assert (agent.base_url, agent.api_key) == (("http://localhost:1/v1", ONE) if stays else (None, None))


def test_a_fallback_of_another_provider_gets_neither() -> None:
    text = """
agents:
  boss: {subagents: [{id: one, fallback: "anthropic:claude"}]}
  one: {model: m, base_url: "http://localhost:1/v1", api_key: "${KEY}"}
"""
    config = parse(text, "agents.yaml", {"KEY": ONE})
    (fallback,) = config.agents.keys() - {"boss", "one"}
    assert config.agents["one"].api_key == ONE
    assert (config.agents[fallback].base_url, config.agents[fallback].api_key) == (None, None)


@pytest.mark.parametrize("key", ["two words hush", "hush\n", "húsh", "[hush]: {hush", "{hush: hush}"])
def test_what_cannot_be_one_is_told_and_not_shown(key: str) -> None:
    for text, environ in (
        ('agents: {a: {model: m, api_key: "${KEY}"}}', {"KEY": key}),
        ("agents: {a: {model: m}}", {"HERMES_AGENTS__A__API_KEY": key}),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(text, "agents.yaml", environ)
        told = "api_key must be text of letters, digits and signs, without blanks"
        assert str(caught.value).partition(": ")[2] == told


def test_one_that_is_not_here_is_told_where_it_is_needed() -> None:
    config = parse("agents: {a: {model: m, api_key: '${KEY:-}'}}", "agents.yaml", {})
    assert config.agents["a"].api_key == ""
    with pytest.raises(ConfigError, match="model 'm' needs a key: its `api_key` is empty here"):
        check_model("m", "http://localhost:1/v1", "", {"OPENAI_API_KEY": "k"})
    check_model("anthropic:claude", None, ONE, {})


def test_a_provider_that_takes_it_gets_it() -> None:
    client = model_for("openrouter:some/model", None, ONE).client  # type: ignore[attr-defined]
    assert client.api_key == ONE
