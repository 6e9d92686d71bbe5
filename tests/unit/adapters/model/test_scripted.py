"""The scripted model, as pydantic-ai sees it: what tests of agents stand on."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelConnectionError, ModelRateLimitError
from pydantic_ai.messages import ToolCallPart

from hermes_async.adapters.model.names import model_for
from tests.support.model import ScriptedModel, broken, call, hang, say, status, two_tools
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


async def test_it_streams_text_and_usage(scripted: ScriptedModel) -> None:
    scripted.then(say("It ", "is ", "so.", tokens=(7, 3)))
    agent = Agent(model_for("gpt-4o-mini", scripted.url), instructions="Be brief.")
    async with agent, agent.run_stream("Is it?") as result:
        said = [text async for text in result.stream_text(delta=True, debounce_by=None)]
    assert (said, result.usage.input_tokens, result.usage.output_tokens) == (["It ", "is ", "so."], 7, 3)
    request = scripted.requests[0]
    assert (request.model, request.streamed, request.last) == ("gpt-4o-mini", True, "Is it?")
    assert request.said("system") == ["Be brief."]


@pytest.mark.parametrize("streamed", [False, True])
async def test_it_calls_tools(scripted: ScriptedModel, streamed: bool) -> None:
    scripted.then(call("double", number=21), say("It is 42."))
    agent = Agent(model_for("m", scripted.url))

    @agent.tool_plain
    def double(number: int) -> int:
        return 2 * number

    async def listen(_: object, events: object) -> None:
        async for _ in events:  # type: ignore[attr-defined]
            pass

    async with agent:
        result = await agent.run("21?", event_stream_handler=listen if streamed else None)
    assert (result.output, scripted.requests[1].said("tool")) == ("It is 42.", ["42"])
    assert [request.streamed for request in scripted.requests] == [streamed, streamed]
    assert any(isinstance(part, ToolCallPart) for m in result.all_messages() for part in m.parts)


async def test_it_refuses_and_breaks_off(scripted: ScriptedModel) -> None:
    scripted.then(status(429, retry_after="2"), broken("It "))
    agent = Agent(model_for("m", scripted.url), model_settings={"max_retries": 0})
    async with agent:
        with pytest.raises(ModelRateLimitError) as refused:
            await agent.run("?")
        with pytest.raises(ModelConnectionError):
            async with agent.run_stream("?") as result:
                await result.get_output()
    assert refused.value.headers["retry-after"] == "2"


async def test_it_tells_of_a_client_that_went_away(scripted: ScriptedModel) -> None:
    scripted.then(hang("It "))
    agent = Agent(model_for("m", scripted.url))
    async with agent:
        asking = asyncio.create_task(agent.run("?"))
        await wait_until_async(lambda: scripted.open == 1)
        asking.cancel()
        await asyncio.wait({asking})
        await wait_until_async(lambda: scripted.dropped == 1)
    assert scripted.open == 0


async def test_a_function_may_be_the_script() -> None:
    with ScriptedModel(script=two_tools) as model:
        agent = Agent(model_for("m", model.url))

        @agent.tool_plain
        def look(query: str) -> str:
            return f"found {query}"

        async with agent:
            assert (await agent.run("?")).output == "It is so."
    assert len(model.requests) == 2
