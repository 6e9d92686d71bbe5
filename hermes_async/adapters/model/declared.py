"""Agents that agents.yaml declares with a model: each becomes a subagent like any other, of the async lane.

pydantic-ai is imported by whoever runs one, and by nobody else: a chat that only dispatches needs none of it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hermes_async.adapters.model.names import check_model
from hermes_async.adapters.model.prices import check_price
from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import Subagent
from hermes_async.core.tool import Tool
from hermes_async.domain.agent import AgentSpec, RunLimits, SubagentSpec
from hermes_async.domain.errors import ConfigError, HermesError, InvalidInput
from hermes_async.domain.task import Lane

if TYPE_CHECKING:  # an optional extra
    from hermes_async.adapters.model.run import Runs

#: Loads tools by their names in agents.yaml.
LoadTools = Callable[[Iterable[str]], Mapping[str, Tool]]


class DeclaredAgents:
    """Makes subagents of declared agents; those of one process share models and their connections.

    Args:
        tools: loads the tools of an agent.
        has_workers: the workers run in the environment of this process, so that what is missing here is
            missing there, too, and a dispatch can be refused.
        models: what stands in for the models of agents, by the agents' names, in tests.
    """

    def __init__(
        self, tools: LoadTools, *, has_workers: bool = False, models: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.tools = tools
        self.has_workers = has_workers
        self.models = models

    def __call__(self, spec: AgentSpec) -> Subagent[..., Any]:
        """Return what runs a declared agent."""
        agent = Declared(spec, self)
        options = SubagentSpec(id=spec.name, agent=spec.name, limits=spec.limits)
        return Subagent(spec.name, agent.function(), options, Lane(spec.pool or Lane.ASYNC), agent)

    @cached_property
    def runs(self) -> Runs:
        """What runs them; it takes long to import.

        Raises:
            ConfigError: pydantic-ai cannot be imported.
        """
        try:
            from hermes_async.adapters.model.run import Runs  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                f"declared agents need pydantic-ai, which cannot be imported: {error}"
            ) from error
        return Runs(self.tools)


@dataclass(frozen=True, eq=False)
class Declared:
    """One of them, as core's `Needs`."""

    spec: AgentSpec
    family: DeclaredAgents

    def function(self) -> Callable[..., Any]:
        """Return the agent as a function: one text, or named values, in; a text out."""

        async def run(ctx: TaskContext, input: str = "", **details: Any) -> str:
            asked = prompt(self.spec, input, details)
            model = self.family.models.get(self.spec.name)
            spec = self.spec if model else self._affordable(ctx)
            return await self.family.runs.run(spec, model, ctx, asked)

        run.__name__ = run.__qualname__ = self.spec.name
        run.__doc__ = description(self.spec)
        return run

    def check(self, options: SubagentSpec) -> None:
        """Look whether the packages, the key and the price are there that a task would need here."""
        if self.spec.name not in self.family.models:
            with _told_of(self.spec):
                _check_price(self._checked(options.model), options.limits)

    def admit(self, options: SubagentSpec) -> None:
        """Refuse what no worker could run; those of another machine may have what is missing here."""
        if self.family.has_workers:
            self.check(options)
        else:
            with _told_of(self.spec):
                self._with(options.model)

    def prepare(self, options: SubagentSpec) -> None:
        """Import what takes long, load the tools, and look whether there is such a model."""
        self.check(options)
        with _told_of(self.spec):
            self.family.runs.prepare(self._with(options.model))

    async def close(self) -> None:
        """Close the connections of this loop, which all agents share."""
        if "runs" in vars(self.family):
            await self.family.runs.close()

    def _checked(self, said: str | None) -> AgentSpec:
        spec = self._with(said)
        check_model(spec.model or "", spec.base_url, spec.api_key)
        return spec

    def _affordable(self, ctx: TaskContext) -> AgentSpec:
        """Return the agent of a task, whose parent may have set a limit that it does not know of."""
        spec = self._checked(ctx.model)
        for limits in ctx.bounds:
            _check_price(spec, limits)
        return spec

    def _with(self, said: str | None) -> AgentSpec:
        """Return the agent with the model that its parent says, else with its own."""
        name = said or self.spec.model
        if name is None:
            raise ConfigError("it has no model of its own: give it `model:`, or invoke it as a parent does")
        return self.spec.with_model(name)


def _check_price(spec: AgentSpec, limits: RunLimits) -> None:
    check_price(spec.model or "", spec.base_url, limits)


@contextmanager
def _told_of(spec: AgentSpec) -> Iterator[None]:
    """Name the agent in a ConfigError."""
    try:
        yield
    except HermesError as error:
        if str(error).startswith("agent "):
            raise
        raise ConfigError(f"agent {spec.name!r}: {error}") from None


def prompt(spec: AgentSpec, input: str, details: Mapping[str, Any]) -> str | None:
    """Return what the model is asked: the text, and then a line for each named value.

    Raises:
        InvalidInput: there is nothing to do.
    """
    lines = [f"{name}: {_plain(value)}" for name, value in details.items()]
    text = "\n\n".join(filter(None, (input, "\n".join(lines))))
    if not text and not spec.instructions:
        raise InvalidInput(f"{spec.name} has nothing to do: give it an `input`")
    return text or None


def description(spec: AgentSpec) -> str:
    """Return what a parent's model reads before it delegates."""
    if spec.description:
        return spec.description
    first = inspect.cleandoc(spec.instructions or "").partition("\n\n")[0]
    return first or "A task agent" + (f" with the tools {', '.join(spec.tools)}." if spec.tools else ".")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
