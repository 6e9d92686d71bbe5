"""A parent that chats, and speaks by itself when a task has news. Run: python examples/11_chat.py"""

import asyncio

from tea import research

from hermes_async.chat import ChatParent
from hermes_async.chat.pieces import Text, TurnBegan, TurnEnded
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec
from hermes_async.testing import LocalHermes

RESEARCH = SubagentSpec(id="research", agent="research")
PARENT = AgentSpec(type="conversational", model="gpt-4o-mini", subagents=(RESEARCH,))
CONFIG = AgentsConfig(agents={"parent_agent": PARENT})  # what agents.yaml would say


async def main() -> None:
    """Delegate in one turn; the news bring about the next one."""
    async with LocalHermes(research, config=CONFIG) as hermes, ChatParent(hermes, "parent_agent") as chat:
        pieces = chat.pieces()  # of all turns, also those that nobody asked for
        print(await chat.say("Find out about tea."))  # at once: say what you like meanwhile
        in_news = False
        async for piece in pieces:
            if isinstance(piece, TurnBegan):
                in_news = piece.said is None
            elif isinstance(piece, Text) and in_news:
                print(piece.text, end="")
            elif isinstance(piece, TurnEnded) and in_news:
                print()
                return


asyncio.run(main())
