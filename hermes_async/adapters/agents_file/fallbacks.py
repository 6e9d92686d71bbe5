"""A fallback may be another model: then the same agent goes on with it, as an agent of its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from hashlib import blake2b

from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec
from hermes_async.domain.errors import did_you_mean

_OUTSIDE = re.compile(r"[^A-Za-z0-9_.-]+")
#: Characters of an agent's name.
_LONGEST = 100


def with_other_models(config: AgentsConfig, names: Collection[str]) -> AgentsConfig:
    """Return `config` with an agent for each model that a subagent falls back on."""
    made = {agent.name: agent for agent in _made(config, names)}
    if not made:
        return config
    agents = {
        name: parent.model_copy(
            update={"subagents": tuple(_renamed(use, config, names) for use in parent.subagents)}
        )
        for name, parent in {**config.agents, **made}.items()
    }
    return config.model_copy(update={"agents": agents})


def means_model(use: SubagentSpec, config: AgentsConfig, names: Collection[str]) -> bool:
    """Tell whether a fallback is a model: `provider:model`, or a bare name that resembles no agent's."""
    if not use.fallback or use.fallback in names or use.agent not in config.agents:
        return False
    if not config.has_model(use.agent):
        return False
    return ":" in use.fallback or not did_you_mean(use.fallback, names)


def _made(config: AgentsConfig, names: Collection[str]) -> Iterator[AgentSpec]:
    for parent in config.agents.values():
        for use in parent.subagents:
            if means_model(use, config, names):
                name = _renamed(use, config, names).fallback
                yield (
                    config.agents[use.agent].with_model(use.fallback or "").model_copy(update={"name": name})
                )


def _renamed(use: SubagentSpec, config: AgentsConfig, names: Collection[str]) -> SubagentSpec:
    if not means_model(use, config, names):
        return use
    return use.model_copy(update={"fallback": _name(use.agent, use.fallback or "")})


def _name(agent: str, model: str) -> str:
    """Return a name for an agent with another model, and another one for each model."""
    name = f"{agent}.{_OUTSIDE.sub('-', model)}"
    if name == f"{agent}.{model.replace(':', '-', 1)}" and len(name) <= _LONGEST:
        return name
    mark = blake2b(model.encode(), digest_size=4).hexdigest()  # others may read the same
    return f"{name[: _LONGEST - len(mark) - 1]}-{mark}"
