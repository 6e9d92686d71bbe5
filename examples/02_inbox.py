"""Several tasks, and an inbox that a chat drains between its turns. Run: python examples/02_inbox.py"""

from __future__ import annotations

import asyncio

from hermes_async import Session, TaskContext, subagent
from hermes_async.testing import LocalHermes


@subagent
async def count(ctx: TaskContext, word: str, seconds: float) -> str:
    """Take some time, say something on the way, and return."""
    ctx.message(f"counting the letters of {word}")
    await asyncio.sleep(seconds)
    return f"{word} has {len(word)} letters"


async def turn(session: Session, acknowledge: bool) -> None:
    """Say what lies in the inbox, oldest first; what is not acknowledged comes again."""
    for delivery in await session.pending():
        event = delivery.event
        print(" ", event.type, event.data.text if event.type == "session.message" else event.data.output)
        if acknowledge:
            await delivery.ack()


async def main() -> None:
    """Dispatch slow work first: the inbox has it in the order in which it ends."""
    async with LocalHermes(count) as hermes:
        session = hermes.session("chat-1")
        slow = await session.dispatch("count", word="procrastination", seconds=0.6)
        await asyncio.sleep(0.1)
        quick = await session.dispatch("count", word="now", seconds=0.2)
        await quick
        print("a turn that crashes before it acknowledges:")
        await turn(session, acknowledge=False)
        print("the next turn:")
        await turn(session, acknowledge=True)
        await slow
        print("the last turn:")
        await turn(session, acknowledge=True)
        await session.dispatch_many("count", [{"word": "x" * n, "seconds": 0.1} for n in (1, 2, 3)])
        async for batch in session.batches(coalesce=0.5):  # an idle parent is woken
            print("one turn for", len(batch), "deliveries;", await session.unread(), "wait until it is done")
            await batch.ack()
            break
        print(await session.unread(), "wait")


if __name__ == "__main__":
    asyncio.run(main())
