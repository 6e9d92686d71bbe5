"""Agents that note in the ledger what they do, and that die where they are told to."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hermes_async.core.subagent import Subagent
from hermes_async.domain.agent import RetryPolicy
from hermes_async.sdk import TaskContext, subagent
from tests.acceptance.faults.ledger import VARIABLE, Ledger

SOON = RetryPolicy(initial=0.1, jitter=False)
#: Who is told of what becomes of a task.
TOLD = {
    "on_complete": "tests.acceptance.faults.handlers:told",
    "on_failure": "tests.acceptance.faults.handlers:told",
    "on_progress": "tests.acceptance.faults.handlers:going",
}
#: Where an agent may kill its own process.
POINTS = ("start", "progress", "child", "return")


@cache
def ledger() -> Ledger:
    """The ledger of this process."""
    return Ledger.of_process()


@contextmanager
def noted(ctx: TaskContext, agent: Subagent[..., str]) -> Iterator[None]:
    """Note the beginning and the end of a body; one that is killed has no end."""
    what = {"task": ctx.task_id, "attempt": ctx.attempt}
    ledger().write("began", **what, session=ctx.session_id, agent=agent.name)
    try:
        yield
    finally:
        ledger().write("ended", **what)


def die_at(point: str, here: str) -> None:
    """Kill this process if this is the point."""
    if point == here:
        os.kill(os.getpid(), signal.SIGKILL)


@subagent(retry_limit=3, retry=SOON, callbacks=TOLD)
async def work(ctx: TaskContext, stamp: str, seconds: float = 0.1, failures: int = 0) -> str:
    """Work in two halves with news between them, and return the stamp that came in."""
    with noted(ctx, work):
        await asyncio.sleep(seconds / 2)
        ctx.progress(50, "half way")
        ctx.message(stamp)
        await asyncio.sleep(seconds / 2)
        if ctx.attempt <= failures:
            raise ConnectionError(f"attempt {ctx.attempt}")
        return stamp


@subagent(retry_limit=3, retry=SOON, callbacks=TOLD)
def sync_work(ctx: TaskContext, stamp: str, seconds: float = 0.1, failures: int = 0) -> str:
    """The same in a process of its own."""
    with noted(ctx, sync_work):
        time.sleep(seconds)
        ctx.progress(50, "half way")
        if ctx.attempt <= failures:
            raise ConnectionError(f"attempt {ctx.attempt}")
        return stamp


@subagent(retry_limit=3, retry=SOON, concurrency_limit=2)
async def narrow(ctx: TaskContext, stamp: str, seconds: float = 0.1) -> str:
    """Work of which a session may have only so much at once."""
    with noted(ctx, narrow):
        await asyncio.sleep(seconds)
        return stamp


@subagent(callbacks=TOLD)
async def family(ctx: TaskContext, stamp: str, seconds: float = 0.1, pause: float = 0.0) -> str:
    """Let a child do the work, and after a pause wait for it."""
    with noted(ctx, family):
        child = await ctx.dispatch(work, stamp, seconds)
        ledger().write("accepted", task=child.id, session=ctx.session_id, agent="work", stamp=stamp)
        await asyncio.sleep(pause)
        return await child


@subagent
async def doomed(ctx: TaskContext, stamp: str, point: str, attempts: int = 1) -> str:
    """Kill the worker at a point, in the first attempts."""
    where = point if ctx.attempt <= attempts else ""
    with noted(ctx, doomed):
        die_at(where, "start")
        await asyncio.sleep(0)
        ctx.progress(50, "half way")
        await asyncio.sleep(0.4)  # by then it is written
        die_at(where, "progress")
        if point == "child":
            child = await ctx.dispatch(work, stamp)
            ledger().write("accepted", task=child.id, session=ctx.session_id, agent="work", stamp=stamp)
            die_at(where, "child")
        die_at(where, "return")
        return stamp


@subagent
def sync_doomed(ctx: TaskContext, stamp: str, attempts: int = 1) -> str:
    """Kill the pool's child in the first attempts."""
    with noted(ctx, sync_doomed):
        die_at("start" if ctx.attempt <= attempts else "", "start")
        return stamp


@subagent
async def wave(ctx: TaskContext, number: int) -> int:
    """End in the second after the sign that all are given, each at its own moment; one in five fails."""
    sign = Path(os.environ[VARIABLE]).with_name("sign")
    while not sign.exists():
        await asyncio.sleep(0.2)
    await asyncio.sleep(float(sign.read_text()) + number * 617 % 1000 / 1000 - time.time())
    if number % 5 == 0:
        raise ValueError(f"number {number}")
    return number


@subagent
async def anything(ctx: TaskContext, value: object) -> object:
    """Return what came in."""
    return value


@subagent
def sync_anything(ctx: TaskContext, value: object) -> object:
    """The same in a process of its own."""
    return value


@subagent
async def returns(ctx: TaskContext, kind: str) -> object:
    """Return something that has no JSON form."""
    return monster(kind)


@subagent
def sync_returns(ctx: TaskContext, kind: str) -> object:
    """The same in a process of its own."""
    return monster(kind)


def monster(kind: str) -> object:
    """Something that a record cannot keep."""
    loop: list[object] = []
    loop.append(loop)
    deep: object = "deep"
    for _ in range(10_000):
        deep = [deep]
    monsters = {"nan": float("nan"), "surrogate": "\ud800", "deep": deep, "large": "x" * 64_000_000}
    return {**monsters, "object": object(), "loop": loop}[kind]
