"""Declared agents that have subagents: their model delegates, and hears of it before the run ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_ai import FunctionToolset, RunContext, Tool

from hermes_async.adapters.model.offered import offered
from hermes_async.core.context import TaskContext
from hermes_async.core.delegation import NAMES, Delegation
from hermes_async.core.function_calling import Face
from hermes_async.domain.agent import AgentSpec
from hermes_async.domain.errors import ConfigError


class Subtasks:
    """The six tools of one run, and the news of what they have started."""

    def __init__(self, ctx: TaskContext) -> None:
        self._children = ctx.children
        self._delegation = Delegation(self._children)

    @property
    def toolset(self) -> FunctionToolset[TaskContext]:
        """The tools, as pydantic-ai takes them."""
        tools = [self._offered(face) for face in self._delegation.faces.values()]
        return FunctionToolset(tools, instructions=self._delegation.instructions)

    async def news(self) -> str | None:
        """Wait, without a slot, for what the model is to be told next; None: nothing more comes."""
        events = await self._children.news()
        return self._delegation.news(events) if events else None

    def _offered(self, face: Face) -> Tool[TaskContext]:
        async def use(run: RunContext[TaskContext], arguments: dict[str, Any]) -> str:
            return await self._delegation.call(face.name, arguments, call_id=run.tool_call_id)

        return offered(face.name, face.description, face.schema(), use)


def check_names(spec: AgentSpec, tools: Iterable[str]) -> None:
    """Look whether an agent that delegates has tools of its own that would be taken for others.

    Raises:
        ConfigError: it has.
    """
    taken = sorted(set(NAMES) & set(tools)) if spec.subagents else []
    if taken:
        raise ConfigError(f"its tool {taken[0]!r} has a name of those with which it delegates: rename it")
