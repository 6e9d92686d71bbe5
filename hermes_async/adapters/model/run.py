"""One run of a declared agent: ask the model, spend, call the tools, and again, until it has answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from pydantic_ai import Agent, RunContext, Tool, UsageLimits
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRun
from pydantic_ai.settings import ModelSettings

from hermes_async.adapters.model.answers import whole
from hermes_async.adapters.model.connections import Connections
from hermes_async.adapters.model.failures import explained
from hermes_async.adapters.model.names import full_name
from hermes_async.adapters.model.offered import offered
from hermes_async.adapters.model.purse import Purse
from hermes_async.adapters.model.sentences import named
from hermes_async.adapters.model.show import Shown
from hermes_async.adapters.model.subtasks import Subtasks, check_names
from hermes_async.adapters.model.voice import Voice
from hermes_async.adapters.otel.model import model_spans
from hermes_async.core import tool as core_tool
from hermes_async.core.context import TaskContext
from hermes_async.core.tool_call import call
from hermes_async.domain.agent import AgentSpec
from hermes_async.domain.events import MessageData

LoadTools = Callable[[Iterable[str]], Mapping[str, core_tool.Tool]]

#: The record counts, over attempts and child tasks; pydantic-ai is not to count as well.
UNLIMITED: Final = UsageLimits(request_limit=None)
#: How often in a row a model may call a tool with what is no JSON, one that is not there, or say nothing.
ERRS: Final = 3
#: Calls of tools of one run at once, whatever its model wants: each may take a thread.
AT_ONCE: Final = 32
#: Sending again is ours: a library that waits holds a slot.
SETTINGS: Final = ModelSettings(max_retries=0)


class Runs:
    """Runs declared agents in one process.

    Args:
        tools: loads the tools of an agent by name.
    """

    def __init__(self, tools: LoadTools) -> None:
        self._tools = tools
        self._agents: dict[str, Agent[TaskContext, str]] = {}
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = WeakKeyDictionary()
        #: By run, whose turn it is to call a tool.
        self._turns: WeakKeyDictionary[TaskContext, asyncio.Semaphore] = WeakKeyDictionary()

    def prepare(self, spec: AgentSpec) -> None:
        """Make what all runs of an agent share, and look whether there is such a model.

        Raises:
            ConfigError: a tool or the model cannot be had.
        """
        self._agent(spec)
        Connections().model(spec.model or "", spec.base_url, spec.api_key)

    async def run(self, spec: AgentSpec, model: Model | None, ctx: TaskContext, prompt: str | None) -> str:
        """Return what an agent answers.

        Args:
            spec: the agent, with the model of this run.
            model: what stands in for that.
            ctx: the task.
            prompt: what it is asked.

        Raises:
            BudgetExceeded: a limit is reached; what was answered so far is shown as a partial result.
            RetryAfter: the model's server asks for a long wait.
            UserError: the server refuses what no retry can cure.
            ModelFailed: the model gives no answer.
        """
        shown = Shown(ctx)
        try:
            asked = model or self._model(spec)
            name = model.model_name if model else spec.model or ""  # the former says nothing of its provider
            purse = Purse(ctx, full_name(name, spec.base_url))
            with explained(named(asked)):
                return whole(await self._answer(spec, Voice(asked, ctx, shown), purse, ctx, prompt))
        except BaseException:
            shown.keep()
            raise

    async def close(self) -> None:
        """Close the connections of the running loop."""
        connections = self._by_loop.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()

    async def _answer(
        self, spec: AgentSpec, voice: Voice, purse: Purse, ctx: TaskContext, prompt: str | None
    ) -> str:
        subtasks = Subtasks(ctx) if spec.subagents else None
        async with self._agent(spec).iter(
            prompt,
            deps=ctx,
            model=voice,
            model_settings=cast(ModelSettings, ctx.model_settings.over(spec.settings).said()),
            usage_limits=UNLIMITED,
            toolsets=[subtasks.toolset] if subtasks else None,
            conversation_id=ctx.session_id,
        ) as run:
            async for node in run:
                if Agent.is_model_request_node(node):
                    await purse.ask()
                    await _hear(voice, run)
                elif Agent.is_call_tools_node(node):
                    await purse.pay(node.model_response)
                    if calls := node.model_response.tool_calls:
                        voice.shown.tools(calls)
                    else:
                        voice.shown.end(node.model_response)
                        await _hear(voice, run)
                        await _be_told(subtasks, run)
        assert run.result is not None
        return run.result.output

    def _model(self, spec: AgentSpec) -> Model:
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            self._by_loop[loop] = Connections()
        return self._by_loop[loop].model(spec.model or "", spec.base_url, spec.api_key)

    def _agent(self, spec: AgentSpec) -> Agent[TaskContext, str]:
        if spec.name not in self._agents:
            own = self._tools(spec.tools)
            check_names(spec, own)
            tools = [self._offered(tool) for tool in own.values()]
            self._agents[spec.name] = Agent(
                name=spec.name,
                instructions=spec.instructions,
                deps_type=TaskContext,
                tools=tools,
                model_settings=SETTINGS,
                retries=ERRS,
                capabilities=model_spans(),
            )
        return self._agents[spec.name]

    def _offered(self, tool: core_tool.Tool) -> Tool[TaskContext]:
        async def use(run: RunContext[TaskContext], arguments: dict[str, Any]) -> str:
            async with self._turns.setdefault(run.deps, asyncio.Semaphore(AT_ONCE)):
                return await call(tool, run.deps, arguments)

        return offered(tool.name, tool.description, tool.schema, use)


async def _hear(voice: Voice, run: AgentRun[TaskContext, str]) -> None:
    """Give the model what was said to the task, at its next step, or as a further one."""
    await voice.hear()
    while voice.heard:
        run.enqueue(_framed(voice.heard.popleft()))


async def _be_told(subtasks: Subtasks | None, run: AgentRun[TaskContext, str]) -> None:
    """Give the model the next news of what it has delegated, if it has nothing else to go on with."""
    if subtasks is not None and not run.pending_messages:
        news = await subtasks.news()
        if news is not None:
            run.enqueue(news)


def _framed(message: MessageData) -> str:
    data = "" if message.data is None else f"\n{json.dumps(message.data, ensure_ascii=False)}"
    return f"<message from='parent'>\n{message.text}{data}\n</message>\nTake it into account, and go on."
