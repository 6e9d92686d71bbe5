"""Agents, callbacks and a parent whose own spans and log lines belong to their attempts."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

from opentelemetry import trace

from hermes_async import connect
from hermes_async.sdk import TaskContext, subagent
from tests.support.agents import SOON

logger = logging.getLogger(__name__)


def step(name: str) -> Any:
    """A span of the agent's own."""
    return trace.get_tracer("own").start_as_current_span(name)


@subagent
async def lead(ctx: TaskContext, text: str) -> str:
    """Have two others work, in both lanes."""
    logger.info("leading %s", text)
    with step("plan"):
        here = await ctx.dispatch(think, text)
        there = await ctx.dispatch(think_in_child, text)
    return f"{await here} {await there}"


@subagent
async def think(ctx: TaskContext, text: str) -> str:
    with step("step"):
        logger.info("thinking of %s", text)
        await asyncio.to_thread(logger.info, "thinking in a thread")
        return text


@subagent(pool="process")
def think_in_child(ctx: TaskContext, text: str) -> str:
    with step("step"):
        logger.info("thinking of %s", text)
        return text


@subagent(retry_limit=1, retry=SOON)
async def stumble(ctx: TaskContext) -> int:
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return ctx.attempt


@subagent
async def linger(ctx: TaskContext, seconds: float = 600.0) -> int:
    """Do a step, and stay in another in the first attempt."""
    with step("first"):
        pass
    with step("second"):
        ctx.progress(50, "in it")
        await asyncio.sleep(seconds if ctx.attempt == 1 else 0.01)
    return ctx.attempt


@subagent(pool="process")
def linger_in_child(ctx: TaskContext, seconds: float = 600.0) -> int:
    """The same in a process of its own."""
    with step("first"):
        pass
    with step("second"):
        ctx.progress(50, "in it")
        time.sleep(seconds if ctx.attempt == 1 else 0.01)
    return ctx.attempt


def told(result: Any, parent: Any) -> None:
    with step("telling"):
        logger.info("telling of %s", result.output)


async def _turn(name: str) -> None:
    """Be the parent: dispatch within a span, and wait."""
    async with connect() as hermes:
        with step("turn"):
            handle = await hermes.session("chat", parent="boss").dispatch(name, "chips")
        print(handle.id, handle.trace_id, await handle, flush=True)


async def _chat() -> None:
    """Be a parent with a model, until it has answered to the news of what it has delegated."""
    from hermes_async.chat import ChatParent
    from hermes_async.chat.pieces import TurnEnded

    async with connect() as hermes, ChatParent(hermes, "boss", session_id="chat") as chat:
        pieces = chat.pieces()
        chat.say("What about chips?")
        ended = 0
        async for piece in pieces:
            ended += isinstance(piece, TurnEnded)
            if ended == 2:
                break
        print("both turns ended", flush=True)


if __name__ == "__main__":
    asyncio.run(_chat() if sys.argv[1] == "chat" else _turn(sys.argv[1]))
