"""How a task is brought to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until all have ended.

    One is cancelled again and again: what it calls (a store, a `wait_for`) may swallow a cancellation, and
    who waits after a single one would wait for ever.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.1)


async def leave(on_lost: Callable[[], None]) -> NoReturn:
    """End what an attempt does that is over: whatever its agent would do now is no concern of anybody's.

    Raises:
        CancelledError: always.
    """
    on_lost()
    await asyncio.sleep(0)  # who is cancelled by that is not to be cancelled twice
    raise asyncio.CancelledError("this attempt is over")
