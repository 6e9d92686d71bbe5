"""Five tiny subagents, one for each thing that can happen to a task, for tests and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio

from hermes_async.sdk import TaskContext, subagent

Progress = Callable[[float, str], None]

STEPS = 10


async def sleep_in_steps(seconds: float, progress: Progress) -> float:
    """Sleep, telling of every tenth, and return the seconds that really passed."""
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        # Sleeping until a due time, not for a tenth: late wake-ups must not add up in a benchmark.
        await anyio.sleep(max(0.0, started + seconds * step / STEPS - time.monotonic()))
        progress(100 * step / STEPS, f"{seconds * step / STEPS:.1f} of {seconds:.1f} s")
    return time.monotonic() - started


def burn_in_steps(seconds: float, progress: Progress) -> int:
    """Keep one core busy, telling of every tenth, and return how many rounds were turned."""
    started, rounds = time.monotonic(), 0
    for step in range(1, STEPS + 1):
        due = started + seconds * step / STEPS
        while time.monotonic() < due:
            rounds += 1
        progress(100 * step / STEPS, f"{rounds} rounds")
    return rounds


@subagent
async def echo(ctx: TaskContext, text: str = "") -> str:
    """Give back the text it was given."""
    return text


@subagent
async def wait(ctx: TaskContext, seconds: float = 1.0) -> float:
    """Sleep for some seconds, reporting progress, and return how long it really took."""
    return await sleep_in_steps(seconds, ctx.progress)


@subagent
def burn(ctx: TaskContext, seconds: float = 1.0) -> int:
    """Keep one processor core busy for some seconds and return how many rounds it turned."""
    return burn_in_steps(seconds, ctx.progress)


@subagent(retry_limit=5)
async def flaky(ctx: TaskContext, failures: int = 1) -> str:
    """Fail the first attempts, as many as `failures` says, and then succeed."""
    if ctx.attempt <= failures:
        raise ConnectionError(f"attempt {ctx.attempt} fails; attempt {failures + 1} will not")
    return f"succeeded at attempt {ctx.attempt}"


@subagent
async def fail(ctx: TaskContext, message: str = "this agent always fails") -> str:
    """Always fail with a ValueError of the given message."""
    raise ValueError(message)
