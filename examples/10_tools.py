"""A tool of one's own in the hands of a declared agent. Run it as it is: the model is a stand-in here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from hermes_async import TaskContext, ToolFailed, tool
from hermes_async.domain.agent import AgentsConfig, AgentSpec
from hermes_async.testing import LocalHermes

SHELVES = {"tea": 7, "coffee": 0}
#: What agents.yaml would say.
CONFIG = AgentsConfig(agents={"clerk": AgentSpec(model="gpt-4o-mini", tools=("__main__:in_stock",))})


@tool(timeout=5)
def in_stock(ctx: TaskContext, item: str) -> dict[str, int]:
    """Tell how many of an item are in stock.

    Args:
        item: its name, in a word.
    """
    ctx.progress(None, f"looking for {item}")
    if item not in SHELVES:
        raise ToolFailed(f"{item} is not sold here; there is {' and '.join(SHELVES)}")
    return {item: SHELVES[item]}


async def model(messages: list[Any], info: Any) -> AsyncIterator[Any]:
    """Call the tool twice at once, and say what it has told."""
    told = [part.content for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    if told:
        yield "\n".join(told)
    else:
        yield {
            number: DeltaToolCall("in_stock", {"item": item}) for number, item in enumerate(("tea", "milk"))
        }


async def main() -> None:
    """Show what the model reads of the tool, and of its results."""
    print(in_stock.name, in_stock.schema["properties"])
    async with LocalHermes(config=CONFIG, models={"clerk": FunctionModel(stream_function=model)}) as hermes:
        print(await (await hermes.session("chat-1").dispatch("clerk", "Is there tea, and milk?")))


if __name__ == "__main__":
    asyncio.run(main())
