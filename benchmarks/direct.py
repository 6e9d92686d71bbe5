"""The same agent as in benchmarks/declared.yaml, called as pydantic-ai itself is called: many at once.

`python -m benchmarks.direct COUNT` prints how many seconds all of them took; with `--plain` nobody listens to
the text as it comes, and pydantic-ai does not stream.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterable
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks import talk


async def run(count: int) -> float:
    """Return the seconds that so many runs take whose text is listened to."""
    provider = OpenAIProvider(base_url=os.environ["BENCH_MODEL"], api_key="none")
    agent = Agent(
        OpenAIChatModel("gpt-4o-mini", provider=provider),
        instructions="Look both things up, then answer.",
        tools=[talk.weather, talk.traffic],
    )
    handler = _listen if "--plain" not in sys.argv else None
    async with agent:
        await agent.run("Go.", event_stream_handler=handler)
        began = time.perf_counter()
        await asyncio.gather(*(agent.run("Go.", event_stream_handler=handler) for _ in range(count)))
        return time.perf_counter() - began


async def _listen(_: Any, events: AsyncIterable[Any]) -> None:
    async for _event in events:
        pass


if __name__ == "__main__":
    print(asyncio.run(run(int(sys.argv[1]))))
