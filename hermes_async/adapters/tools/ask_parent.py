"""The tool `ask_parent`: a model asks whoever delegated to it, and waits without a slot for the answer."""

from __future__ import annotations

from typing import Final

from hermes_async.adapters.tools.options import ToolOptions
from hermes_async.core.context import TaskContext
from hermes_async.core.tool import Tool
from hermes_async.core.tool_call import as_text

#: Seconds: as long as a task may take at all, whose own limits count instead.
FOR_EVER: Final = 31_536_000.0


def make(options: ToolOptions) -> Tool:
    """Return the tool."""
    return Tool("ask_parent", ask_parent, FOR_EVER)


async def ask_parent(ctx: TaskContext, question: str) -> str:
    """Ask a question that only those who gave you this work can answer. Ask when you cannot go on without.

    Args:
        question: everything that is needed to answer it; they have not seen your work.
    """
    return as_text(await ctx.ask(question))
