"""The lines of stdin on an event loop, whether it is a pipe, a file or a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

_CHUNK = 65_536


async def stdin_lines() -> AsyncIterator[str]:
    """Yield what stands on stdin, line by line, to its end."""
    if sys.stdin is None:  # it was closed before we began
        return
    # A thread that may hang in a read for ever, and holds no lock of Python meanwhile. The loop's own way
    # would make a terminal non-blocking for everybody who writes to it, and cannot wait for a file.
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def tell(line: str | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=_read, args=(sys.stdin.fileno(), tell), name="hermes-stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line


def _read(file: int, tell: Callable[[str | None], None]) -> None:
    rest = b""
    with suppress(OSError):
        while chunk := os.read(file, _CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                tell(raw.decode(errors="replace"))
    if rest:
        tell(rest.decode(errors="replace"))
    tell(None)
