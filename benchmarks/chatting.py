"""How soon a parent's first word comes while a subagent works: beside an idle chat, and one that waits."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figure import Figure, Goal, Row, Sample, Sides, percentile
from benchmarks.stage import Stage
from hermes_async.bootstrap import connect
from hermes_async.chat.parent import ChatParent
from hermes_async.chat.pieces import Text, ToolCalled
from hermes_async.core.hermes import Hermes
from hermes_async.settings import Settings
from tests.support.model import Reply, Request, call, say

CONFIG = Path(__file__).with_name("chatting.yaml")
#: Messages to each of both chats, in turn.
COUNT, QUICK_COUNT = 40, 5
#: Seconds that the subagent works which is delegated, and the one that is waited for.
DELEGATED, INVOKED, QUICK_INVOKED = 60.0, 10.0, 1.0
#: Seconds for one run.
PATIENCE = 90.0


def answer(request: Request) -> Reply:
    """What the model says: it delegates when it is asked to, otherwise it answers at once."""
    if request.messages[-1]["role"] == "user" and request.last.startswith("start"):
        _, subagent, seconds = request.last.split()
        return call("delegate", subagent=subagent, input=seconds)
    return say("I ", "am ", "here.")


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    count, invoked = (QUICK_COUNT, QUICK_INVOKED) if quick else (COUNT, INVOKED)
    argv = [sys.executable, "-m", "tests.support.model", "--script", "benchmarks.chatting:answer"]
    stage.flush()
    with stage.child("model", argv) as model:
        model.wait_until(lambda: model.said.startswith("http"))
        env = {"BENCH_MODEL": model.said.strip(), "HERMES_CONFIG": str(CONFIG)}
        with stage.ours(slots=10, env=env):
            settings = Settings.read(CONFIG, {**stage.env, **env})
            yield Sides(lambda: asyncio.run(_measure(settings, count, invoked)))


async def _measure(settings: Settings, count: int, invoked: float) -> Sample:
    async with connect(settings) as hermes, asyncio.timeout(PATIENCE):
        idle, busy = await _in_turn(hermes, count)
        waits = await _waiting(hermes, invoked)
    return {
        "idle": 1000 * percentile(idle, 50),
        "busy": 1000 * percentile(busy, 50),
        "times": percentile(busy, 50) / percentile(idle, 50),
        "invoked": 1000 * waits,
    }


async def _in_turn(hermes: Hermes, count: int) -> tuple[list[float], list[float]]:
    """Talk with one parent that has nothing to do, and with one whose subagent works; return the delays."""
    async with ChatParent(hermes, "parent") as calm, ChatParent(hermes, "parent") as parent:
        await calm.say("hello")
        await parent.say(f"start work {DELEGATED:g}")
        idle, busy = [], []
        for _ in range(count):
            idle.append(await _first_word(calm))
            busy.append(await _first_word(parent))
        (task,) = await parent.session.tasks()
        if task.status.is_terminal:
            raise RuntimeError("the subagent has ended before the last message")
        await (await parent.session.handle(task.id)).cancel()
    return idle, busy


async def _waiting(hermes: Hermes, seconds: float) -> float:
    """Talk with a parent that waits for its subagent."""
    async with ChatParent(hermes, "parent") as parent:
        invoking = parent.say(f"start invoked {seconds:g}")
        async for piece in invoking:
            if isinstance(piece, ToolCalled):
                break
        delay = await _first_word(parent)
        await invoking
    return delay


async def _first_word(parent: ChatParent) -> float:
    """Return the seconds from a message to the first word of its answer, once that is complete."""
    began, first = time.monotonic(), 0.0
    async for piece in parent.say("are you there?"):
        if isinstance(piece, Text) and not first:
            first = time.monotonic() - began
    return first


FIGURE = Figure(
    "chat",
    [
        Row("idle", "message → first word, idle, p50", "ms"),
        Row("busy", "  while a 60 s subagent runs, p50", "ms"),
        Row("times", "  the one divided by the other", "x", Goal("≤", 1.2, 1.1)),
        Row("invoked", "  with one of 10 s that is waited for", "ms"),
    ],
    _open,
)
