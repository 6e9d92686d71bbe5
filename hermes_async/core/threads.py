"""A thread for one call of a `def`: it cannot be stopped, only left behind, and then it holds up nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Threads of one process that may be left behind before no more are started.
MOST_STRAYS: Final = 32

#: What goes on in this process although nobody waits for it any more.
_strays: set[threading.Thread] = set()


def are_too_many() -> bool:
    """Tell whether so many threads were left behind, and have not ended, that no more are started."""
    if len(_strays) < MOST_STRAYS:
        return False
    _strays.difference_update([each for each in list(_strays) if not each.is_alive()])
    return len(_strays) >= MOST_STRAYS


class TooManyStrays(Exception):
    """So many calls go on although nobody waits for them that no more are begun."""


async def run_in_thread(function: Callable[[], T], name: str, *, refusable: bool = True) -> T:
    """Call a function in a thread of its own, which ends with the call.

    Whoever is cancelled leaves the thread behind. It is a daemon: the process can end without it.

    Args:
        function: what to call.
        name: of the thread.
        refusable: do not call it while too many others are left behind.

    Raises:
        TooManyStrays: it was refused.
    """
    if refusable and are_too_many():
        raise TooManyStrays(f"{len(_strays)} calls go on in this process although they were given up")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            settle, value = future.set_result, function()
        except BaseException as error:
            settle, value = future.set_exception, _carried(error)  # type: ignore[assignment]
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, future, settle, value)

    thread = threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=True)
    thread.start()
    try:
        return await future
    finally:
        if not future.done() or future.cancelled():
            _strays.add(thread)


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        settle(value)


def _carried(error: BaseException) -> BaseException:
    """Return what a future can carry: it takes no StopIteration, and a loop is ended by a SystemExit."""
    if isinstance(error, StopIteration | SystemExit | KeyboardInterrupt):
        return RuntimeError(f"{type(error).__name__}: {error}".removesuffix(": "))
    return error
