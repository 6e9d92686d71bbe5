"""The same with openai-agents, its tracing switched off. Run: python examples/08_openai_agents.py"""

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from tea import research

from hermes_async import Delegation
from hermes_async.testing import LocalHermes

set_tracing_disabled(True)  # by default it sends what is said to OpenAI


async def main() -> None:
    """Delegate in one turn, and hear of the end in another."""
    async with LocalHermes(research) as hermes, AsyncOpenAI() as client:
        session = hermes.session("chat-1")
        tools = Delegation(session)
        model = OpenAIChatCompletionsModel("gpt-4o-mini", client)
        offered = [function_tool(each) for each in tools.functions]
        agent = Agent("parent", instructions=tools.instructions, tools=offered, model=model)
        turn = await Runner.run(agent, "Find out about tea.")
        print(turn.final_output)
        batch = await anext(session.batches())
        said = turn.to_input_list()
        turn = await Runner.run(agent, [*said, {"role": "user", "content": tools.news(batch)}])
        print(turn.final_output)
        await batch.ack()


asyncio.run(main())
