"""One turn of the parent, as whoever brought it about sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence

from hermes_async.chat.pieces import Piece, Text, TurnBegan, TurnEnded
from hermes_async.core.session import Delivery
from hermes_async.domain.errors import TurnFailed


class Turn:
    """Await it for the answer, or iterate over its pieces; it goes on whether you do or not."""

    def __init__(self, number: int, said: str | None, tell: Callable[[Piece], None]) -> None:
        self.number = number
        self.said = said
        #: What it is about besides: taken from the inbox when it begins.
        self.news: Sequence[Delivery] = ()
        self.pieces: list[Piece] = []
        self._tell = tell
        self._moved = asyncio.Event()

    def __await__(self) -> Generator[object, None, str]:
        return self.answer().__await__()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        read = 0
        while True:
            moved = self._moved
            while read < len(self.pieces):
                read += 1
                yield self.pieces[read - 1]
            if self.end is not None:
                return
            await moved.wait()

    @property
    def end(self) -> TurnEnded | None:
        """How it ended; None: it has not."""
        last = self.pieces[-1] if self.pieces else None
        return last if isinstance(last, TurnEnded) else None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(piece.text for piece in self.pieces if isinstance(piece, Text))

    async def answer(self) -> str:
        """Wait for the end and return the answer, or what there was of it when it was interrupted.

        Raises:
            TurnFailed: the model did not answer; what was said is kept and goes with the next turn.
        """
        async for piece in self:
            if isinstance(piece, TurnEnded) and piece.how == "failed":
                raise TurnFailed(piece.error)
        return self.text

    async def ended(self) -> None:
        """Wait for the end, however it ends."""
        async for _ in self:
            pass

    def begin(self) -> None:
        """Add the first piece: what the turn is about is known."""
        self.add(TurnBegan(self.number, self.said, [each.event for each in self.news]))

    def add(self, piece: Piece) -> None:
        """Append a piece and tell everybody."""
        self.pieces.append(piece)
        self._tell(piece)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
