"""The output of a child process as lines, whatever it writes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Bytes after which an endless line is cut.
LONGEST = 16_384


@asynccontextmanager
async def pipe() -> AsyncIterator[tuple[int, AsyncIterator[str]]]:
    """Yield the end to write to, which is closed on leaving, and the lines that come out."""
    # A pipe of our own: with asyncio's, a grandchild that keeps it open would hide the child's end.
    readable, writable = os.pipe()
    reader = asyncio.StreamReader(limit=LONGEST)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(readable, "rb", 0)
    )
    try:
        yield writable, _lines(reader)
    finally:
        transport.close()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while chunk := await reader.read(LONGEST):
        *whole, rest = (rest + chunk).split(b"\n")
        for raw in whole:
            yield _text(raw)
        if len(rest) > LONGEST:
            yield _text(rest)
            rest = b""
    if rest:
        yield _text(rest)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").rstrip("\r")
