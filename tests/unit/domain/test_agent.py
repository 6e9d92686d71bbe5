"""The words of agents.yaml as values: defaults, strictness, resolution, and what a record keeps of them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hermes_async.domain.agent import (
    AgentsConfig,
    AgentSpec,
    Idempotency,
    RetryPolicy,
    SubagentSpec,
    Webhook,
)
from hermes_async.domain.errors import UnknownAgent


def config() -> AgentsConfig:
    research = SubagentSpec(id="research", agent="research_agent", idempotency=Idempotency())
    return AgentsConfig(
        agents={
            "boss": AgentSpec(type="conversational", subagents=(research,)),
            "research_agent": AgentSpec(),
        }
    )


def test_a_spec_survives_json_and_is_compact() -> None:
    spec = SubagentSpec(
        id="research",
        agent="research_agent",
        async_=False,
        timeout=None,
        retry=RetryPolicy(initial=2, non_retryable=("ValueError",)),
        webhook=Webhook(url="https://example.com/hook"),
    )
    text = spec.model_dump_json(exclude_defaults=True)
    assert text == (
        '{"id":"research","agent":"research_agent","async":false,"timeout":null,'
        '"retry":{"initial":2.0,"non_retryable":["ValueError"]},'
        '"webhook":{"url":"https://example.com/hook"}}'
    )
    assert SubagentSpec.model_validate_json(text) == spec


def test_a_spec_without_an_agent_yet_survives_too() -> None:
    spec = SubagentSpec(id="research")
    assert SubagentSpec.model_validate(spec.model_dump()) == spec


def test_the_whole_configuration_survives_json() -> None:
    assert AgentsConfig.model_validate_json(config().model_dump_json()) == config()


def test_a_spec_is_frozen_and_strict() -> None:
    spec = SubagentSpec(id="research")
    with pytest.raises(ValidationError):
        spec.timeout = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        SubagentSpec.model_validate({"id": "research", "timeout": "3"})
    with pytest.raises(ValidationError):
        SubagentSpec.model_validate({"id": "research", "timout": 3})


@pytest.mark.parametrize(
    ("said", "retries"),
    [
        ({}, 0),
        ({"retry_on_failure": True}, 2),
        ({"retry_on_failure": False}, 0),
        ({"retry_limit": 4}, 4),
        ({"retry_limit": 4, "retry_on_failure": True}, 4),
        ({"retry_limit": 4, "retry_on_failure": False}, 0),
        ({"retry_limit": 0, "retry_on_failure": True}, 0),
    ],
)
def test_how_often_a_failure_is_retried(said: dict[str, object], retries: int) -> None:
    assert SubagentSpec.model_validate({"id": "research", **said}).retries == retries


def test_what_is_said_lies_over_what_was_said_before() -> None:
    decorated = SubagentSpec(id="a", timeout=5, priority=9, retry=RetryPolicy(initial=3, factor=4))
    declared = SubagentSpec(id="b", agent="a", timeout=600, retry=RetryPolicy(factor=2))
    spec = declared.over(decorated)
    assert (spec.id, spec.agent, spec.timeout, spec.priority) == ("b", "a", 600, 9)
    assert (spec.retry.initial, spec.retry.factor) == (3, 2)


def test_names_are_resolved() -> None:
    assert config().subagent("boss", "research").agent == "research_agent"
    assert config().agent("boss").name == "boss"
    assert [agent.name for agent in config().agents.values()] == ["boss", "research_agent"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("bos", "research"), "no agent 'bos'; did you mean 'boss'?"),
        (("zzz", "research"), "no agent 'zzz'; there is boss, research_agent"),
        (("boss", "reserch"), "agent 'boss' has no subagent 'reserch'; did you mean 'research'?"),
        (("boss", "zzz"), "agent 'boss' has no subagent 'zzz'; there is research"),
        (("research_agent", "zzz"), "agent 'research_agent' has no subagent 'zzz'; there is none"),
    ],
)
def test_an_unknown_name_names_the_nearest(names: tuple[str, str], message: str) -> None:
    with pytest.raises(UnknownAgent) as caught:
        config().subagent(*names)
    assert str(caught.value) == message


def test_secrets_are_not_in_the_repr() -> None:
    secret = AgentsConfig.model_validate({"task_queue": "redis://joe:hush@h/0", "relay": {"secret": "hush"}})
    assert "hush" not in repr(secret)


def test_secrets_are_not_in_errors() -> None:
    with pytest.raises(ValidationError) as caught:
        SubagentSpec.model_validate({"id": "a", "webhook": {"url": "https://h", "secret": "hush"}})
    assert "hush" not in str(caught.value)
