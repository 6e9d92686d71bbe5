"""Dispatch tasks, go on, and await them, without servers. Run: python examples/01_dispatch.py"""

from __future__ import annotations

import asyncio

from hermes_async import TaskContext, TaskFailed, subagent
from hermes_async.testing import LocalHermes


@subagent(timeout=5, retry_limit=2)
async def brew(ctx: TaskContext, drink: str) -> str:
    """Make a drink; the machine needs a second try."""
    if ctx.attempt == 1:
        raise ConnectionError("the machine is cold")
    ctx.progress(50, "pouring")
    return f"one {drink}"


@subagent
async def refuse(ctx: TaskContext, drink: str) -> str:
    """Never make a drink."""
    raise ValueError(f"no {drink} after six")


async def main() -> None:
    """Order two drinks and get one."""
    async with LocalHermes(brew.options(retry={"initial": 0.1}), refuse) as hermes:
        session = hermes.session("chat-1")
        coffee = await session.dispatch("brew", drink="espresso")
        tea = await session.dispatch("refuse", drink="tea")
        print("both are on their way")
        print(await coffee)
        try:
            await tea
        except TaskFailed as failed:
            print(f"no tea ({failed.reason}): {failed.error.message if failed.error else ''}")
        async for event in coffee.events():
            print(event.type, f"attempt {event.attempt}")


if __name__ == "__main__":
    asyncio.run(main())
