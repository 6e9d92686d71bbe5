"""The subagents that are measured; benchmarks/plain.py has the same as plain Celery tasks."""

from __future__ import annotations

import time

import anyio

from benchmarks.stamps import stamp
from hermes_async.sdk import TaskContext, subagent


@subagent
async def noop(ctx: TaskContext) -> None:
    """Do nothing."""


@subagent
async def mark(ctx: TaskContext, number: int) -> None:
    """Stamp the moment, and nothing else."""
    stamp(number, time.monotonic())


@subagent
async def rest(ctx: TaskContext, seconds: float) -> None:
    """Sleep, and stamp nothing."""
    await anyio.sleep(seconds)


@subagent
async def linger(ctx: TaskContext, number: int, seconds: float) -> None:
    """Stamp the moment, then sleep: the stamp tells that it runs."""
    stamp(number, time.monotonic())
    await anyio.sleep(seconds)


@subagent
async def ending(ctx: TaskContext, moment: float) -> list[float]:
    """Sleep until a moment of the machine's monotonic clock; return when that began and ended."""
    began = time.monotonic()
    await anyio.sleep(moment - began)
    return [began, time.monotonic()]


@subagent
async def nap(ctx: TaskContext, number: int, seconds: float) -> None:
    """Sleep, then stamp when that began and ended."""
    began = time.monotonic()
    await anyio.sleep(seconds)
    stamp(number, began)


@subagent
async def ask(ctx: TaskContext) -> str:
    """Ask, and return the answer."""
    return await ctx.ask("Which?", schema=str)
