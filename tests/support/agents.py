"""Agents that do whatever a worker may meet: sleep, fail, refuse to stop, kill the process they run in."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from hermes_async.domain.agent import RetryPolicy
from hermes_async.sdk import TaskContext, subagent

SOON = RetryPolicy(initial=0.1, jitter=False)


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


@subagent
def sync_echo(ctx: TaskContext, text: str) -> str:
    return text


@subagent
async def fail(ctx: TaskContext) -> None:
    raise ValueError("no ❄")


@subagent
def sync_fail(ctx: TaskContext) -> None:
    raise ValueError("no ❄")


@subagent(retry_limit=2, retry=SOON)
async def flaky(ctx: TaskContext, failures: int = 1) -> int:
    if ctx.attempt <= failures:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@subagent(retry_limit=2, retry=SOON)
def sync_flaky(ctx: TaskContext, failures: int = 1) -> int:
    if ctx.attempt <= failures:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@subagent
async def nap(ctx: TaskContext, seconds: float) -> int:
    """Sleep, tell the parent when that is cut short, and return the worker's process id."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)  # cleaning up may take its time
        ctx.message("cleaned up")
        raise
    return os.getpid()


@subagent(pool="process")
async def nap_in_child(ctx: TaskContext, seconds: float) -> int:
    """The same in a process of its own."""
    return int(await nap.function(ctx, seconds))


@subagent
def sync_nap(ctx: TaskContext, seconds: float) -> int:
    """Sleep, tell the parent when that is cut short, and return the worker's process id."""
    try:
        time.sleep(seconds)
    except Exception:
        time.sleep(0.05)
        ctx.message("cleaned up")
        raise
    return os.getpid()


@subagent
async def nap_once(ctx: TaskContext, seconds: float) -> int:
    """Sleep in the first attempt only, and return the worker's process id."""
    await asyncio.sleep(seconds if ctx.attempt == 1 else 0.01)
    return os.getpid()


@subagent
def sync_nap_once(ctx: TaskContext, seconds: float) -> int:
    """The same in a process of its own."""
    time.sleep(seconds if ctx.attempt == 1 else 0.01)
    return os.getppid()


@subagent
async def stubborn(ctx: TaskContext, seconds: float) -> str:
    """Swallow every cancellation."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
    return "late"


@subagent
async def stubborn_once(ctx: TaskContext, seconds: float) -> str:
    """The same in the first attempt only."""
    return str(await stubborn.function(ctx, seconds if ctx.attempt == 1 else 0.0))


@subagent
async def hog(ctx: TaskContext, seconds: float) -> None:
    """Block the event loop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@subagent
def sync_stubborn(ctx: TaskContext, seconds: float) -> str:
    """Swallow every exception, the soft limit's among them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(Exception):
            time.sleep(0.05)
    return "late"


@subagent
def sync_stubborn_once(ctx: TaskContext, seconds: float) -> str:
    """The same in the first attempt only."""
    return str(sync_stubborn.function(ctx, seconds if ctx.attempt == 1 else 0.0))


@subagent
def leave(ctx: TaskContext, code: int) -> None:
    """Want to end the process."""
    raise SystemExit(code)


@subagent
def kill_child(ctx: TaskContext, attempts: int = 99) -> int:
    """Kill the process of the first attempts."""
    if ctx.attempt <= attempts:
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@subagent(retry_limit=1, retry=SOON)
def die_when_settled(ctx: TaskContext, folder: str) -> int:
    """Fail; the process dies when that is written, but not yet told its worker, and the next attempt runs."""
    second, let_go = Path(folder, "second"), Path(folder, "let-go")
    if ctx.attempt == 1:
        logging.getLogger("hermes.worker").addFilter(lambda _: _kill_when(second))
        raise ConnectionError("attempt 1")
    second.touch()
    _wait_for(let_go)
    return ctx.attempt


def _kill_when(file: Path) -> bool:
    _wait_for(file)
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def _wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.02)


@subagent
async def kill_worker(ctx: TaskContext, attempts: int = 99) -> int:
    """Kill the worker of the first attempts."""
    if ctx.attempt <= attempts:
        os._exit(9)
    return ctx.attempt
