"""A tool as pydantic-ai takes it, with a schema of our own; its arguments are checked by who uses them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pydantic_ai import RunContext, Tool
from pydantic_core import SchemaValidator, core_schema

from hermes_async.core.context import TaskContext

#: Called with the run and the arguments, which nobody has checked.
Use = Callable[[RunContext[TaskContext], dict[str, Any]], Awaitable[str]]

_OBJECT: Final = SchemaValidator(core_schema.dict_schema(keys_schema=core_schema.str_schema()))


def offered(name: str, description: str, schema: dict[str, Any], use: Use) -> Tool[TaskContext]:
    """Return a tool.

    Args:
        name: what the model calls it.
        description: what the model reads of it.
        schema: JSON Schema of the arguments.
        use: does what the tool does.
    """

    async def called(run: RunContext[TaskContext], /, **arguments: Any) -> str:
        return await use(run, arguments)

    tool = Tool[TaskContext].from_schema(called, name, description, schema, takes_ctx=True)
    tool.function_schema.validator = _OBJECT  # it would take a text as well, and fail to call the function
    return tool
