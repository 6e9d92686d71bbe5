"""Agents that hold their slot until a test lets go, one in each lane."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from hermes_async.sdk import TaskContext, subagent

SOON = 0.02


@subagent
async def async_hold(ctx: TaskContext, file: str) -> int:
    """Hold the slot until there is a file of that name, and return the number of the attempt."""
    while not Path(file).exists():
        await asyncio.sleep(SOON)
    return ctx.attempt


@subagent
def process_hold(ctx: TaskContext, file: str) -> int:
    """Hold the slot until there is a file of that name, and return the number of the attempt."""
    while not Path(file).exists():
        time.sleep(SOON)
    return ctx.attempt
