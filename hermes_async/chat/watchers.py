"""Those who see what happens in all turns of a chat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from weakref import WeakSet

from hermes_async.chat.pieces import Piece


class Watchers:
    """Each sees every piece from the moment on at which it begins to watch, until nobody has it any more."""

    def __init__(self) -> None:
        self._queues: WeakSet[asyncio.Queue[Piece | None]] = WeakSet()

    def watch(self) -> AsyncIterator[Piece]:
        """Return the pieces from this call on."""
        queue: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._queues.add(queue)
        return _pieces(queue)

    def tell(self, piece: Piece | None) -> None:
        """Show a piece to everybody; None: there are no more."""
        for queue in self._queues:
            queue.put_nowait(piece)


async def _pieces(queue: asyncio.Queue[Piece | None]) -> AsyncIterator[Piece]:
    while (piece := await queue.get()) is not None:
        yield piece
