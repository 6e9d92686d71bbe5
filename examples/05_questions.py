"""An agent asks, its parent answers and changes its mind. Run: python examples/05_questions.py"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from hermes_async import NotTaken, TaskContext, subagent
from hermes_async.testing import LocalHermes


class Table(BaseModel):
    """Where to sit."""

    seats: int
    outside: bool = False


@subagent(timeout=5)
async def reserve(ctx: TaskContext, name: str) -> str:
    """Reserve a table; the time in which nobody answers is not the agent's."""
    table = await ctx.ask("For how many?", schema=Table)
    wine = await ctx.ask("Red or white?", schema=str, timeout=0.2, default="red")
    wishes = [message.text for message in await ctx.messages(wait=5)]
    place = "outside" if table.outside else "inside"
    return f"{name}: {table.seats} seats {place}, {wine} wine, {', '.join(wishes)}"


async def main() -> None:
    """Answer the first question twice, and the second not at all."""
    async with LocalHermes(reserve) as hermes:
        session = hermes.session("chat-1")
        handle = await session.dispatch("reserve", name="Ada")
        async for delivery in session.inbox():
            print(delivery.event.data.question)
            break
        print(await handle.answer({"seats": 2, "outside": True}))
        await handle.send("by the window")
        try:
            await handle.answer({"seats": 8}, question=delivery.event.data.question_id)
        except NotTaken:
            print("somebody was first")
        print(await handle)
        print([event.data.by async for event in handle.events() if event.type == "task.resumed"])


if __name__ == "__main__":
    asyncio.run(main())
