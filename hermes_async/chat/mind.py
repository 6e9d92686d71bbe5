"""One turn of a model: it is asked, calls tools, is told what they returned, and asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, cast

import anyio.to_thread
from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import ModelContextWindowExceededError
from pydantic_ai.messages import (
    InstructionPart,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from hermes_async.adapters.model.answers import paid, whole, words
from hermes_async.adapters.otel.model import request_spans
from hermes_async.chat.history import History
from hermes_async.chat.pieces import Piece, Text, ToolCalled, ToolReturned
from hermes_async.chat.spending import Spending
from hermes_async.chat.toolbox import Toolbox
from hermes_async.chat.window import LEFT_OUT, first_of_half, first_sent
from hermes_async.domain.agent import AgentSpec

#: Who chats hears of a fault at once; the chat itself tries again.
SETTINGS = ModelSettings(max_retries=0)
#: Seconds for which an interrupt waits for what delegates; one that waits for its task is then given up.
PATIENCE = 1.0
INTERRUPTED = "The person interrupted before this call had a result."
TOO_MANY = "Not called: this turn has reached its limit of tool calls. Answer with what you have."


class Mind:
    """A model with its instructions, its tools and the conversation so far.

    Args:
        model: who is asked.
        full: its `provider:model`, by which its price is looked up.
        instructions: the system prompt.
        tools: what it can call.
        history: what was said.
        spec: says how the model answers, and how much of what was said it is sent.
    """

    def __init__(
        self, model: Model, full: str, instructions: str, tools: Toolbox, history: History, spec: AgentSpec
    ) -> None:
        self._model = model
        self._full = full
        self._tools = tools
        self._history = history
        self._most = spec.session.context_tokens
        self._settings = cast(ModelSettings, {**spec.settings.said(), **SETTINGS})
        self._asked = ModelRequestParameters(
            function_tools=[ToolDefinition(**definition) for definition in tools.definitions],
            instruction_parts=[InstructionPart(content=instructions)],
        )
        self._asked_briefly = replace(
            self._asked, instruction_parts=[InstructionPart(content=f"{instructions}\n\n{LEFT_OUT}")]
        )

    async def turn(self, number: int, prompt: str | None, spending: Spending) -> AsyncGenerator[Piece, None]:
        """Ask until the model calls no more tools; what was said is in the history whenever this ends.

        Args:
            number: that of the turn.
            prompt: what is said to the model; None: it goes on with the history.
            spending: what the turn may consume.

        Raises:
            TurnFailed: it has reached a limit.
            AgentRunError: the model does not answer; a prompt without any answer is not in the history.
        """
        if prompt is not None:
            self._history.ask(prompt)
        try:
            async with aclosing(self._rounds(number, spending)) as pieces:
                async for piece in pieces:
                    yield piece
        except Exception:
            if prompt is not None:
                self._history.unask(prompt)
            raise
        finally:
            self._history.complete()

    async def _rounds(self, number: int, spending: Spending) -> AsyncGenerator[Piece, None]:
        while True:
            spending.ask()
            async with aclosing(self._ask(spending)) as texts:
                async for text in texts:
                    yield Text(number, text)
            calls = self._history.calls
            if not calls:
                return
            for call in calls:
                yield ToolCalled(number, call.tool_call_id, call.tool_name, _arguments(call))
            for call, result in zip(calls, await self._call(calls, spending), strict=True):
                yield ToolReturned(number, call.tool_call_id, call.tool_name, result)

    async def _ask(self, spending: Spending) -> AsyncGenerator[str, None]:
        """Ask with what may be sent, and with half of that as often as it is too much for the model."""
        first: int | None = first_sent(self._history.messages, self._most)
        while first is not None:
            said = False
            try:
                async with aclosing(self._hear(first, spending)) as texts:
                    async for text in texts:
                        said = True
                        yield text
                return
            except ModelContextWindowExceededError:
                first = None if said else first_of_half(self._history.messages, first)
                if first is None:
                    raise

    async def _hear(self, first: int, spending: Spending) -> AsyncGenerator[str, None]:
        """Ask with the messages from `first` on; those before them are forgotten once there is an answer."""
        said = ""
        is_brief = first > 0 or self._history.left_out > 0
        try:
            async with model_request_stream(
                self._model,
                self._history.messages[first:],
                model_settings=self._settings,
                model_request_parameters=self._asked_briefly if is_brief else self._asked,
                instrument=request_spans(),
            ) as stream:
                async for event in stream:
                    if text := whole(words(event)):
                        said += text
                        yield text
                answer = stream.get()
        except (asyncio.CancelledError, GeneratorExit):
            self._history.cut(said)
            raise
        self._history.leave_out(first)
        self._history.answer(answer)
        usage = answer.usage
        spending.answered(usage.input_tokens, usage.output_tokens, paid(answer, self._full))

    async def _call(self, calls: Sequence[ToolCallPart], spending: Spending) -> list[str]:
        """Make calls at once; whatever happens, each has a result in the history afterwards."""
        if not spending.call(len(calls)):
            results = [TOO_MANY] * len(calls)
            self._history.returned(calls, results)
            return results
        # a crash from here on leaves a file that says so
        await anyio.to_thread.run_sync(self._history.keep)
        working = [asyncio.create_task(self._tools.call(call.tool_name, call.args)) for call in calls]
        try:
            await asyncio.wait(working)
        except asyncio.CancelledError:
            await self._stop(calls, working)
            raise
        finally:
            self._history.returned(calls, [_result(task) for task in working])
        return [_result(task) for task in working]

    async def _stop(self, calls: Sequence[ToolCallPart], working: Sequence[asyncio.Task[str]]) -> None:
        """Cancel what is slow; what delegates is let to its end, since a task may have been born."""
        for call, task in zip(calls, working, strict=True):
            if not self._tools.is_delegation(call.tool_name):
                task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(working)


def _result(task: asyncio.Task[str]) -> str:
    if not task.done() or task.cancelled():
        task.cancel()
        return INTERRUPTED
    return task.result()


def _arguments(call: ToolCallPart) -> Mapping[str, Any]:
    """Return what a tool is called with, as far as it can be read."""
    try:
        return call.args_as_dict()
    except ValueError:
        return {"?": call.args}
