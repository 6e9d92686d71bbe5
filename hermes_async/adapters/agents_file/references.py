"""What one part of agents.yaml says of another: every name is resolved, and a name of nothing is a fault."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hermes_async.adapters import plugins, tools
from hermes_async.adapters.agents_file.fallbacks import with_other_models
from hermes_async.adapters.agents_file.sentences import Fault
from hermes_async.adapters.agents_file.shape import Loc
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec
from hermes_async.domain.errors import did_you_mean
from hermes_async.domain.urls import is_rabbitmq

#: What an agent that is a function has no use for.
OF_A_MODEL = ("base_url", "api_key", "settings", "tools")


@dataclass(frozen=True)
class Known:
    """What exists outside the file: decorated agents, tools and callbacks of plugins; None: unknown."""

    agents: Collection[str] = ()
    tools: Collection[str] | None = None
    callbacks: Collection[str] | None = None


def resolved(config: AgentsConfig, known: Known) -> AgentsConfig:
    """Return `config` with the agent and the fallback of every subagent filled in."""
    names = {*config.agents, *known.agents}
    agents = {name: _with_agents(agent, names) for name, agent in config.agents.items()}
    return with_other_models(config.model_copy(update={"agents": agents}), names)


def _with_agents(agent: AgentSpec, names: Collection[str]) -> AgentSpec:
    if not agent.subagents:
        return agent
    return agent.model_copy(update={"subagents": tuple(_with_agent(one, names) for one in agent.subagents)})


def _with_agent(subagent: SubagentSpec, names: Collection[str]) -> SubagentSpec:
    found = {"agent": subagent.agent or _agent_named(subagent.id, names)}
    if subagent.fallback:
        found["fallback"] = _agent_named(subagent.fallback, names) or subagent.fallback
    return subagent.model_copy(update=found)


def _agent_named(name: str, names: Collection[str]) -> str:
    """Return the agent of that name, else `<name>_agent`, else nothing."""
    return next((one for one in (name, f"{name}_agent") if one in names), "")


def reference_faults(config: AgentsConfig, known: Known) -> Iterator[Fault]:
    """Yield every fault of a resolved configuration that no single value shows."""
    yield from _top_faults(config)
    names = {*config.agents, *known.agents}
    for name, agent in config.agents.items():
        yield from _agent_faults(agent, ("agents", name), known)
        yield from _duplicate_faults(agent, ("agents", name))
        for index, subagent in enumerate(agent.subagents):
            loc = ("agents", name, "subagents", index)
            yield from _subagent_faults(subagent, loc, agent, names)
            yield from _fallback_faults(subagent, loc, names, config)
            yield from _callback_faults(subagent, loc, known)


def _top_faults(config: AgentsConfig) -> Iterator[Fault]:
    if config.task_queue and is_rabbitmq(config.task_queue) and not config.state:
        cure = "add `state: redis://…`"
        yield Fault(("task_queue",), f"RabbitMQ cannot keep the state of tasks; {cure}")
    pool = config.async_worker_pool
    if pool.max_workers is not None and pool.max_workers < pool.min_workers:
        sentence = f"max_workers must be at least min_workers, which is {pool.min_workers}"
        yield Fault(("async_worker_pool", "max_workers"), sentence)


def _agent_faults(agent: AgentSpec, loc: Loc, known: Known) -> Iterator[Fault]:
    if agent.run and agent.model:
        yield Fault((*loc, "model"), "an agent has `run` or `model`, not both; delete one", at_key=True)
    for key in OF_A_MODEL if agent.run else ():
        if key in agent.model_fields_set:
            sentence = f"`{key}` is for a model, and this agent has `run`; delete it"
            yield Fault((*loc, key), sentence, at_key=True)
    for index, tool in enumerate(agent.tools):
        if known.tools is not None and tool not in known.tools:
            sentence = f"no tool is named {tool!r}{tools.cure(tool, known.tools)}"
            yield Fault((*loc, "tools", index), sentence)


def _duplicate_faults(agent: AgentSpec, loc: Loc) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, subagent in enumerate(agent.subagents):
        if subagent.id in seen:
            sentence = f"a subagent {subagent.id!r} is already given above; choose another id"
            yield Fault((*loc, "subagents", index, "id"), sentence)
        seen.add(subagent.id)


def _subagent_faults(
    subagent: SubagentSpec, loc: Loc, parent: AgentSpec, names: Collection[str]
) -> Iterator[Fault]:
    if not subagent.agent:
        cure = did_you_mean(subagent.id, names) or "; add it under `agents:`"
        sentence = (
            f"subagent {subagent.id!r} has no agent: no {subagent.id!r}, no '{subagent.id}_agent'{cure}"
        )
        yield Fault((*loc, "id"), sentence)
    elif subagent.agent not in names:
        cure = did_you_mean(subagent.agent, names) or "; add it under `agents:`"
        yield Fault((*loc, "agent"), f"no agent is named {subagent.agent!r}{cure}")
    elif subagent.agent == parent.name:
        sentence = f"agent {parent.name!r} would be its own subagent; name another with `agent:`"
        yield Fault((*loc, "agent"), sentence)


def _fallback_faults(
    subagent: SubagentSpec, loc: Loc, names: Collection[str], config: AgentsConfig
) -> Iterator[Fault]:
    fallback = subagent.fallback
    if fallback is None:
        return
    if fallback not in names:
        cure = did_you_mean(fallback, names) or "; add it under `agents:`"
        if subagent.agent in config.agents and config.has_model(subagent.agent):
            cure += "; write `openai:…` to fall back on a model"
        elif ":" in fallback:
            cure = f"; {subagent.agent!r} has no model, so it cannot fall back on another"
        yield Fault((*loc, "fallback"), f"no agent is named {fallback!r}{cure}")
    elif fallback == subagent.agent:
        yield Fault((*loc, "fallback"), f"agent {fallback!r} would be its own fallback; name another")


def _callback_faults(subagent: SubagentSpec, loc: Loc, known: Known) -> Iterator[Fault]:
    if known.callbacks is None:
        return
    for event, name in subagent.callbacks:
        if name is not None and name not in known.callbacks:
            sentence = f"no callback is named {name!r}{plugins.cure(name, known.callbacks)}"
            yield Fault((*loc, "callbacks", event), sentence)
