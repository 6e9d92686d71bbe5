"""Agents that have children, are limited, idle or poisonous, for tests with real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from hermes_async.sdk import TaskContext, subagent
from tests.support.agents import SOON


@subagent
async def nest(ctx: TaskContext, depth: int, seconds: float = 0.0) -> int:
    """Wait for another of the same, so many levels deep; the deepest sleeps."""
    if not depth:
        await asyncio.sleep(seconds)
        return 0
    return 1 + await (await ctx.dispatch(nest, depth - 1, seconds))


@subagent(pool="process")
async def nest_in_child(ctx: TaskContext, depth: int, seconds: float = 0.0) -> int:
    """The same in the process lane."""
    if not depth:
        await asyncio.sleep(seconds)
        return 0
    return 1 + await (await ctx.dispatch(nest_in_child, depth - 1, seconds))


@subagent(pool="async")
def nest_in_thread(ctx: TaskContext, depth: int) -> int:
    """The same in a thread of the async lane."""
    if not depth:
        return 0
    child = ctx.wait(ctx.dispatch, nest_in_thread, depth - 1)
    return 1 + ctx.wait(child.result)


@subagent(pool="async")
def stay_in_thread(ctx: TaskContext, seconds: float) -> None:
    """Heed nothing in a thread of the async lane."""
    time.sleep(seconds)


@subagent
async def clan(ctx: TaskContext, depth: int, seconds: float) -> None:
    """Two children, and so on; those at the bottom sleep in the process lane."""
    if depth:
        children = await ctx.dispatch_many(clan, [{"depth": depth - 1, "seconds": seconds}] * 2)
        await asyncio.gather(*children)
    else:
        await (await ctx.dispatch(timed_in_child, seconds))


@subagent(pool="process")
async def elder(ctx: TaskContext, depth: int, seconds: float, before: float = 0.0) -> None:
    """The same in the process lane, after a while; those at the bottom sleep in the other lane."""
    await asyncio.sleep(before)
    if depth:
        children = await ctx.dispatch_many(elder, [{"depth": depth - 1, "seconds": seconds}] * 2)
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.result())
    else:
        await (await ctx.dispatch(timed, seconds))


@subagent
async def timed(ctx: TaskContext, seconds: float) -> tuple[float, float]:
    """Say from when until when it ran."""
    start = time.time()
    await asyncio.sleep(seconds)
    return start, time.time()


@subagent
def timed_in_child(ctx: TaskContext, seconds: float) -> tuple[float, float]:
    """The same in the process lane."""
    start = time.time()
    time.sleep(seconds)
    return start, time.time()


@subagent
def hush(ctx: TaskContext, seconds: float) -> str:
    """Say a word, then nothing for a while."""
    ctx.partial("a word")
    time.sleep(seconds)
    return "done"


@subagent
def chat(ctx: TaskContext, times: int) -> str:
    """Say something each tenth of a second."""
    for n in range(times):
        time.sleep(0.1)
        ctx.progress(n)
    return "done"


@subagent(fallback="rescue", retry_limit=1, retry=SOON)
async def hopeless(ctx: TaskContext, n: int) -> int:
    raise ValueError("no")


@subagent
def rescue(ctx: TaskContext, n: int) -> list[int]:
    """Takes over in the process lane."""
    return [n, ctx.attempt]


@subagent
async def poison(ctx: TaskContext) -> None:
    """Kill whatever runs it, and its neighbours with it."""
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


@subagent
async def tidy(ctx: TaskContext, seconds: float) -> None:
    """Take long to clean up."""
    try:
        await asyncio.sleep(60.0)
    finally:
        await asyncio.sleep(seconds)
        ctx.message("cleaned up")
