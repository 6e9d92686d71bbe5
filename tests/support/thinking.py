"""A subagent that a scripted model runs, over memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec
from hermes_async.testing import LocalHermes
from tests.support.model import ScriptedModel

TOOLS = "tests.support.lookups"
Start = Callable[..., AbstractAsyncContextManager[Hermes]]


def starting(scripted: ScriptedModel) -> Start:
    """A Hermes whose parent `boss` calls `research`, which the scripted model runs."""

    @asynccontextmanager
    async def started(use: dict[str, Any] | None = None, **agent: Any) -> AsyncIterator[Hermes]:
        research = AgentSpec(**{"model": "gpt-4o-mini", "base_url": scripted.url, **agent})
        uses = SubagentSpec.model_validate(
            {"id": "research", "agent": "research", "timeout": 20.0, **(use or {})}
        )
        config = AgentsConfig(
            agents={"boss": AgentSpec(type="conversational", subagents=(uses,)), "research": research}
        )
        async with LocalHermes(config=config) as hermes:
            yield hermes

    return started


async def dispatched(hermes: Hermes, *args: Any, **named: Any) -> TaskHandle[Any]:
    return await hermes.session("chat", parent="boss").dispatch("research", *args, **named)


async def told(handle: TaskHandle[Any], type_: str) -> list[Any]:
    return [event.data async for event in handle.events() if event.type == type_]
