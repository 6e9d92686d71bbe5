"""Agents that ask, in every way and in both lanes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from hermes_async.sdk import TaskContext, subagent


@subagent
async def asker(ctx: TaskContext, questions: int = 1, after: float = 0.0) -> list[Any]:
    """Ask so many questions, work for a while, and return the answers and the attempt."""
    answers = [await ctx.ask(f"number {n}?") for n in range(questions)]
    await asyncio.sleep(after if ctx.attempt == 1 else 0.0)
    return [*answers, ctx.attempt]


@subagent(pool="process")
async def asker_in_child(ctx: TaskContext, questions: int = 1, after: float = 0.0) -> list[Any]:
    """The same in a process of its own."""
    answers: list[Any] = await asker.function(ctx, questions, after)
    return answers


@subagent
def sync_asker(ctx: TaskContext, questions: int = 1, after: float = 0.0) -> list[Any]:
    """The same as a `def`."""
    answers = [ctx.wait(ctx.ask, f"number {n}?") for n in range(questions)]
    time.sleep(after if ctx.attempt == 1 else 0.0)
    return [*answers, ctx.attempt]


@subagent
async def listener(ctx: TaskContext, count: int) -> list[str]:
    """Return so many messages, each with the attempt that has read it."""
    heard: list[str] = []
    while len(heard) < count:
        heard += [f"{message.text} in {ctx.attempt}" for message in await ctx.messages(60.0)]
        if heard == ["die in 1"]:
            os._exit(9)
    return heard
