"""The agents that this process knows: decorated functions and agents.yaml, under one set of names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from hermes_async.core.agent import checked_agent
from hermes_async.core.function import checked, is_same, place_of
from hermes_async.core.importing import importing
from hermes_async.core.subagent import Subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec, Webhook
from hermes_async.domain.errors import ConfigError, UnknownAgent, did_you_mean
from hermes_async.domain.task import Lane, Task

#: Makes an agent that runs of one that is only declared.
Declare = Callable[[AgentSpec], Subagent[..., Any]]


class Registry:
    """Finds the function of an agent, and the options under which a parent invokes it.

    Args:
        config: what agents.yaml says.
        agents: decorated functions.
        declare: makes the agents that have a model instead of a function; without it they cannot run.

    Raises:
        ConfigError: two functions have one name.
    """

    def __init__(
        self,
        config: AgentsConfig,
        agents: Iterable[Subagent[..., Any]] = (),
        declare: Declare | None = None,
    ) -> None:
        self.config = config
        self._agents: dict[str, Subagent[..., Any]] = {}
        for agent in map(checked_agent, agents):
            _refuse_another(agent, self._agents.get(agent.name, agent))
            self._agents[agent.name] = self._placed(agent)
        self._declare = declare
        #: Kept, since what a subagent takes is worked out once for each value.
        self._resolved: dict[tuple[str | None, str], Subagent[..., Any]] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield the name of every agent that can run tasks."""
        declared = (name for name, spec in self.config.agents.items() if spec.type == "task")
        return iter(dict.fromkeys((*self._agents, *declared)))

    def runnable(self) -> list[Subagent[..., Any]]:
        """Return every agent that can run tasks, importing its function.

        Raises:
            ConfigError: a function cannot be imported.
        """
        names = dict.fromkeys((*self._agents, *self.config.agents))
        return [self.agent(name) for name in names if self.can_run(name)]

    def can_run(self, name: str) -> bool:
        """Return whether an agent has what runs it, be it a function or a model."""
        if name in self._agents or self.config.agent(name).run is not None:
            return True
        return self._declare is not None and self.config.has_model(name)

    def check(self, agent: Subagent[..., Any]) -> None:
        """Look whether an agent has what it needs here, under each name by which it is invoked.

        Raises:
            ConfigError: it has not; the message says what is missing.
        """
        if agent.needs is not None:
            for options in self._uses(agent):
                agent.needs.check(options)

    def prepare(self, agent: Subagent[..., Any]) -> None:
        """Do what takes long before the first task of an agent, under each name by which it is invoked.

        Raises:
            ConfigError: it cannot run; the message says what is missing.
        """
        if agent.needs is not None:
            for options in self._uses(agent):
                agent.needs.prepare(options)

    async def close(self) -> None:
        """Give back what the agents hold on the running loop."""
        for agent in self._agents.values():
            if agent.needs is not None:
                await agent.needs.close()

    def agent(self, name: str) -> Subagent[..., Any]:
        """Return the agent of that name, importing its function at first use.

        Raises:
            UnknownAgent: there is none.
            ConfigError: it cannot be run; the message says why.
        """
        if name not in self._agents:
            self._agents[name] = self._load(name)
        return self._agents[name]

    def resolve(self, subagent: Subagent[..., Any] | str, parent: str | None) -> Subagent[..., Any]:
        """Return what `parent` calls so, or means by an agent itself, with the options it has there.

        Without a parent, or with one that declares no subagents, a name is that of an agent. An agent itself
        is what the parent calls it, and its `options` lie over those of agents.yaml.

        Raises:
            UnknownAgent: the parent has none of that name, or not this agent.
            UserError: this is neither a name nor an agent.
        """
        if isinstance(subagent, str):
            return self._named(subagent, parent)
        agent = checked_agent(subagent)
        return _as_meant(agent, self._named(self._called(agent, parent), parent))

    def _named(self, name: str, parent: str | None) -> Subagent[..., Any]:
        if (parent, name) not in self._resolved:
            self._resolved[parent, name] = self._resolve(name, parent)
        return self._resolved[parent, name]

    def _resolve(self, name: str, parent: str | None) -> Subagent[..., Any]:
        spec = self._declared(name, parent)
        if spec is None:
            return self.agent(name)
        agent = self.agent(spec.agent)
        return agent.but(spec=spec.over(agent.spec))

    def _called(self, agent: Subagent[..., Any], parent: str | None) -> str:
        """Return what `parent` calls an agent: its own name, if that is one of several."""
        names = [name for name in self if self._is(agent, name)]
        declared = self.config.agents.get(parent or "", AgentSpec()).subagents
        called = [use.id for use in declared if use.agent in names] if declared else names
        if agent.name in called:
            return agent.name
        if not names:
            raise UnknownAgent(self._unknown(agent))
        if len(called) == 1:
            return called[0]
        if called:
            several = " and ".join(map(repr, called))
            raise UnknownAgent(f"agent {agent.name!r} is {several} here: name the one that is meant")
        ids = ", ".join(use.id for use in declared)
        raise UnknownAgent(f"agent {parent!r} has no subagent that is {agent.name!r}; there is {ids}")

    def _is(self, agent: Subagent[..., Any], name: str) -> bool:
        """Tell whether a name stands for the function of an agent, without importing that of another name."""
        if name == agent.name:
            known = self.agent(name)
            return known.stands_in or is_same(known.function, agent.function)
        if name in self._agents:
            return self._agents[name].function is agent.function
        module, _, attribute = (self.config.agents[name].run or "").partition(":")
        found = getattr(sys.modules.get(module), attribute, None)
        return agent.function in (found, getattr(found, "function", None))

    def _unknown(self, agent: Subagent[..., Any]) -> str:
        name, place = agent.name, place_of(agent.function)
        if name in self:
            known = place_of(self.agent(name).function)
            return f"agent {name!r} is {known} here, not {place}: give one of them another name"
        cure = f"name it in agents.yaml (`{name}: {{run: {place}}}`), or among the `agents` of `connect`"
        return f"agent {name!r} is not known here: {cure}"

    def subagents(self, parent: str | None) -> list[Subagent[..., Any]]:
        """Return all that `parent` may name: those it declares, else every agent that can be run.

        Raises:
            ConfigError: one of them cannot be run; the message says why.
        """
        known = self.config.agents.get(parent or "", AgentSpec())
        if not known.subagents:
            return self.runnable()
        return [self.resolve(each.id, parent) for each in known.subagents]

    def webhook(self, task: Task) -> Webhook | None:
        """Return where a task is posted when it has ended, as this process' own configuration says."""
        birth = task.birth
        parent = self.config.agents.get(birth.parent or "", AgentSpec())
        said = next((one for one in parent.subagents if one.id == birth.subagent), None)
        if said is not None and "webhook" in said.model_fields_set:
            return said.webhook
        try:
            return self.agent(birth.options.agent or birth.subagent).spec.webhook
        except (UnknownAgent, ConfigError):
            return None

    def callbacks(self) -> set[str]:
        """Return the names of all functions that are to be called with news of a task."""
        declared = (each for agent in self.config.agents.values() for each in agent.subagents)
        specs = (*declared, *(agent.spec for agent in self._agents.values()))
        return {name for spec in specs for _, name in spec.callbacks if name}

    def _placed(self, agent: Subagent[..., Any]) -> Subagent[..., Any]:
        """Return a decorated agent in the lane that agents.yaml says, if it does."""
        declared = self.config.agents.get(agent.name, AgentSpec())
        return agent.but(pool=Lane(declared.pool)) if declared.pool else agent

    def _declared(self, name: str, parent: str | None) -> SubagentSpec | None:
        known = self.config.agents.get(parent or "")
        if parent is None or known is None or not known.subagents:
            return None
        return self.config.subagent(parent, name)

    def _uses(self, agent: Subagent[..., Any]) -> Iterator[SubagentSpec]:
        declared = self.config.agents.get(agent.name, AgentSpec())
        uses = [use for parent in self.config.agents.values() for use in parent.subagents]
        own = [use.over(agent.spec) for use in uses if use.agent == agent.name]
        own += [use.over(agent.spec).without_model() for use in uses if use.fallback == agent.name]
        yield from own
        if declared.model or not own:
            yield agent.spec

    def _load(self, name: str) -> Subagent[..., Any]:
        if name not in self.config.agents:
            known = list(self)
            hint = did_you_mean(name, known) or f"; known are: {', '.join(known) or 'none'}"
            raise UnknownAgent(f"no agent {name!r}{hint}")
        spec = self.config.agents[name]
        if spec.run is None:
            if self._declare is None or not self.config.has_model(name):
                raise ConfigError(f"agent {name!r} cannot run: {_missing(spec)}")
            return self._declare(spec)
        return _adopt(name, spec, _function(name, spec.run))


def _refuse_another(agent: Subagent[..., Any], known: Subagent[..., Any]) -> None:
    if not (agent.stands_in or known.stands_in or is_same(agent.function, known.function)):
        both = f"{place_of(known.function)} and {place_of(agent.function)}"
        raise ConfigError(f"two agents are called {agent.name!r}: {both}; give one another name")


def _as_meant(agent: Subagent[..., Any], found: Subagent[..., Any]) -> Subagent[..., Any]:
    """Return what was found for an agent itself, with what was chosen for this dispatch."""
    if found.stands_in:  # it takes anything: what the caller takes it for says what fits
        found = agent.but(name=found.name, spec=found.spec, pool=found.lane, needs=found.needs)
    if agent.chosen is None or agent.chosen == found.chosen:  # what was registered is a default
        return found
    chosen = agent.chosen.model_copy(update={"id": found.spec.id, "agent": found.spec.agent})
    return found.but(spec=chosen.over(found.spec))


def _missing(spec: AgentSpec) -> str:
    if spec.type == "conversational":
        return "it is a conversation, which dispatches tasks but does not run them"
    return "give it `run: package.module:function` or `model: …`"


def _function(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    with importing(module, f"agent {name!r}: cannot import {module!r}"):
        found = import_module(module)
    if not hasattr(found, attribute):
        hint = did_you_mean(attribute, vars(found))
        raise ConfigError(f"agent {name!r}: module {module!r} has no {attribute!r}{hint}")
    return getattr(found, attribute)


def _adopt(name: str, spec: AgentSpec, found: Any) -> Subagent[..., Any]:
    pool = Lane(spec.pool) if spec.pool else None
    if isinstance(found, Subagent):
        spec_here = found.spec.model_copy(update={"id": name, "agent": name})
        return found.but(name=name, spec=spec_here, pool=pool or found.pool)
    if callable(found):
        return Subagent(name, checked(name, found), SubagentSpec(id=name, agent=name), pool)
    raise ConfigError(f"agent {name!r}: {spec.run} is not a function")


def collect(module: str) -> list[Subagent[..., Any]]:
    """Return the decorated functions of a module.

    Raises:
        ConfigError: it cannot be imported, or has none.
    """
    with importing(module, f"cannot import module {module!r}"):
        values = vars(import_module(module)).values()
    agents = [value for value in values if isinstance(value, Subagent)]
    if not agents:
        raise ConfigError(f"module {module!r} has no function decorated with @subagent")
    return agents
