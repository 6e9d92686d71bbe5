"""One call of a tool: whatever it does, the model gets a text, and the run goes on."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from hermes_async.core.context import TaskContext
from hermes_async.core.threads import TooManyStrays, run_in_thread
from hermes_async.core.tool import Tool
from hermes_async.domain.errors import BudgetExceeded, InvalidInput, RetryAfter, ToolFailed

#: Characters of what is told of an exception.
LONGEST_FAULT: Final = 500
_END_TAG: Final = re.compile(r"<(?=\s*/\s*tool_result)", re.IGNORECASE)


async def call(tool: Tool, context: TaskContext | None, arguments: Mapping[str, Any]) -> str:
    """Call a tool on behalf of a task, and return what the model is to read.

    What the tool gives, or raises, stands between `<tool_result>` tags: it is data from outside, and may be
    hostile. A call that does not fit, takes too long or fails is told in a sentence.

    Args:
        tool: what is called.
        context: that of the task; a tool that takes one is given it. None: for a tool that takes none.
        arguments: by name, as the model has chosen them.

    Raises:
        BudgetExceeded: what the task may spend is spent.
        RetryAfter: the tool asks that the whole attempt be tried again later.
        CancelledError: the task is to end. A `def` goes on in its thread until it ends by itself.
    """
    try:
        given = tool.checked(arguments)
    except InvalidInput as error:
        return f"{error}; call it again with arguments that fit"
    try:
        async with asyncio.timeout(tool.timeout) as limit:
            return framed(tool, cut(as_text(await _value(tool, context, given)), tool.max_chars))
    except (BudgetExceeded, RetryAfter):
        raise
    except TooManyStrays as error:
        return f"{tool.name} was not called: {error}; go on without it"
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if _is_cancel(error):
            raise
        if isinstance(error, TimeoutError) and limit.expired():
            return (
                f"{tool.name} has not answered within {tool.timeout:g} s; ask for less, or go on without it"
            )
        return framed(tool, f"{tool.name} failed: {_told(error)}")


def _is_cancel(error: BaseException) -> bool:
    """Tell whether the task is to end, and not merely something that the tool has waited for."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    is_soft_limit = type(error) is not asyncio.CancelledError  # the pool's; it is an Exception, too
    return is_soft_limit or task is None or task.cancelling() > 0


def framed(tool: Tool, text: str) -> str:
    """Return what came from outside with tags around it that it cannot close itself."""
    inside = _END_TAG.sub("&lt;", _visible(text))
    return f'<tool_result name="{tool.name}" trust="none">\n{inside}\n</tool_result>'


def _visible(text: str) -> str:
    """Return a text without what a person would not see of it, and a model would obey."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else " " * each.isspace() for each in text)


def as_text(value: object) -> str:
    """Return a result as a model reads it: text as it is, anything else as JSON."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = to_json(value).decode()
        except (PydanticSerializationError, ValueError, RecursionError):
            text = str(value)
    return text.encode("utf-8", "replace").decode()


def cut(text: str, most: int) -> str:
    """Return at most so many characters of a text, and say how many are missing."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[cut: {most:,} of {len(text):,} characters are shown]"


async def _value(tool: Tool, context: TaskContext | None, given: dict[str, Any]) -> Any:
    first = (context,) if tool.takes_context else ()
    if tool.is_async:
        return await tool.function(*first, **given)
    found = await run_in_thread(partial(tool.function, *first, **given), f"tool {tool.name}")
    return await found if inspect.isawaitable(found) else found  # a `def` around an `async def`


def _told(error: BaseException) -> str:
    """Return an exception as one short line."""
    try:
        message = " ".join(str(error).split())
    except Exception as fault:
        message = f"its message cannot be read: {type(fault).__name__}"
    line = message if isinstance(error, ToolFailed) else f"{type(error).__name__}: {message}"
    return line.removesuffix(": ").encode("utf-8", "replace").decode()[:LONGEST_FAULT]
