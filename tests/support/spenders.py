"""Agents that spend, as if they asked a model, for tests with real workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hermes_async.core.handle import TaskHandle
from hermes_async.sdk import BudgetExceeded, Subagent, TaskContext, subagent

#: Of each call to the model.
CENT, INTO, OUT = 0.01, 100, 10


def note(ctx: TaskContext, book: str) -> None:
    """Write down outside of everything that a call was made."""
    with Path(book).open("a") as file:
        file.write(f"{ctx.task_id}\n")


@subagent
async def spender(ctx: TaskContext, book: str, seconds: float) -> None:
    """Ask a model for so many seconds, again and again."""
    for n in range(1_000):
        await ctx.spend(requests=1)
        await asyncio.sleep(seconds)
        note(ctx, book)
        ctx.partial(n)
        await ctx.spend(input_tokens=INTO, output_tokens=OUT, cost_usd=CENT)


@subagent
def spender_in_child(ctx: TaskContext, book: str, seconds: float) -> None:
    """The same in the process lane."""
    for n in range(1_000):
        ctx.wait(ctx.spend, requests=1)
        time.sleep(seconds)
        note(ctx, book)
        ctx.partial(n)
        ctx.wait(ctx.spend, input_tokens=INTO, output_tokens=OUT, cost_usd=CENT)


@subagent(timeout=None)
async def patron(ctx: TaskContext, book: str, seconds: float, each: int) -> str:
    """Have as many spend in each lane, and be content with what there is."""
    return await have_spent(ctx, (spender, spender_in_child), book, seconds, each)


@subagent(timeout=None)
async def crowd(ctx: TaskContext, book: str, seconds: float, size: int) -> str:
    """The same in the async lane alone."""
    return await have_spent(ctx, (spender,), book, seconds, size)


async def have_spent(
    ctx: TaskContext, whom: Sequence[Subagent[..., Any]], book: str, seconds: float, each: int
) -> str:
    await ctx.spend(requests=1)
    children: list[TaskHandle[Any]] = []
    for agent in whom:
        children += await ctx.dispatch_many(agent, [{"book": book, "seconds": seconds}] * each)
    await asyncio.gather(*children, return_exceptions=True)
    with suppress(BudgetExceeded):
        await ctx.spend(requests=1)
        return "there is something left"
    return "content"


@subagent(timeout=None)
def slow_patron(ctx: TaskContext, seconds: float) -> None:
    """Wait for a child in the other lane, then for nothing."""
    ctx.partial("so far")
    ctx.wait(ctx.dispatch, "spender", "/dev/null", seconds)
    time.sleep(seconds)
