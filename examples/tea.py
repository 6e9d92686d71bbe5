"""`research`: an agent that takes a second, for the examples of frameworks."""

from __future__ import annotations

import asyncio

from hermes_async import TaskContext, subagent


@subagent
async def research(ctx: TaskContext, topic: str) -> str:
    """Find out what is known of a topic."""
    await asyncio.sleep(1)
    return f"{topic} is hot water with leaves"
