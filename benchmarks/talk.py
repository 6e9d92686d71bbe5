"""What the model of the figure `declared` says, and its two tools."""

from __future__ import annotations

import asyncio

from tests.support.model import Reply, Request, call, say

#: Seconds before the model's first word, and of a call of a tool.
THINKS, LOOKS = 0.2, 0.05
_ANSWER = tuple(f"word{number} " for number in range(20))


def answer(request: Request) -> Reply:
    """Call both tools in turn, then say twenty words."""
    done = len(request.said("tool"))
    reply = call(request.tools[done], place="here") if done < 2 else say(*_ANSWER)
    return reply.but(delay=THINKS)


async def weather(place: str) -> str:
    """Tell the weather of a place."""
    await asyncio.sleep(LOOKS)
    return f"sunny in {place}"


async def traffic(place: str) -> str:
    """Tell the traffic of a place."""
    await asyncio.sleep(LOOKS)
    return f"calm in {place}"
