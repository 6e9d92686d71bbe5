"""The same with langchain and langchain-openai. Run: python examples/09_langchain.py"""

import asyncio

from langchain.agents import create_agent
from tea import research

from hermes_async import Delegation
from hermes_async.testing import LocalHermes


async def main() -> None:
    """Delegate in one turn, and hear of the end in another."""
    async with LocalHermes(research) as hermes:
        session = hermes.session("chat-1")
        tools = Delegation(session)
        agent = create_agent("openai:gpt-4o-mini", [*tools.functions], system_prompt=tools.instructions)
        turn = await agent.ainvoke({"messages": [("user", "Find out about tea.")]})
        print(turn["messages"][-1].content)
        batch = await anext(session.batches())
        turn = await agent.ainvoke({"messages": [*turn["messages"], ("user", tools.news(batch))]})
        print(turn["messages"][-1].content)
        await batch.ack()


asyncio.run(main())
