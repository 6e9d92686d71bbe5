"""A pydantic-ai agent that delegates and goes on talking. Run: python examples/06_pydantic_ai.py"""

import asyncio

from pydantic_ai import Agent
from tea import research

from hermes_async import Delegation
from hermes_async.testing import LocalHermes


async def main() -> None:
    """Delegate in one turn, and hear of the end in another."""
    async with LocalHermes(research) as hermes:
        session = hermes.session("chat-1")
        tools = Delegation(session)
        agent = Agent("openai-chat:gpt-4o-mini", instructions=tools.instructions, tools=tools.functions)
        turn = await agent.run("Find out about tea.")
        print(turn.output)  # at once: the chat is free for whatever else the user says
        batch = await anext(session.batches())
        turn = await agent.run(tools.news(batch), message_history=turn.all_messages())
        print(turn.output)
        await batch.ack()


asyncio.run(main())
