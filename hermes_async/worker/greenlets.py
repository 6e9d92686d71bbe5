"""Celery's synchronous tracer in a greenlet, which a coroutine drives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from greenlet import getcurrent, greenlet

__all__ = ["Tracer", "traced"]


class Tracer(greenlet):  # type: ignore[misc]
    """Runs Celery's synchronous tracer; its parent is the greenlet of the loop."""


async def traced(
    target: Callable[..., Any], args: tuple[Any, ...], drive: Callable[[Awaitable[Any]], Awaitable[Any]]
) -> Any:
    """Call the tracer; what it hands over meanwhile is awaited by `drive`."""
    tracer = Tracer(target, getcurrent())
    tracer.gr_context = getcurrent().gr_context
    outcome = tracer.switch(*args)
    while not tracer.dead:  # then it asks us to await something
        try:
            value = await drive(outcome)
        except BaseException as error:
            outcome = tracer.throw(error)
        else:
            outcome = tracer.switch(value)
    return outcome
