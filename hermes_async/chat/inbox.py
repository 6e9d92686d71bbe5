"""The inbox as a chat reads it: what a turn may take, and what is acknowledged once that turn is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from hermes_async.core.ending import end
from hermes_async.core.feed import ASK_AGAIN
from hermes_async.core.session import Delivery, Session
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable

logger = logging.getLogger("hermes.chat")

#: Deliveries that one turn takes at most; the rest is for the next.
MOST: Final = 100


class Inbox:
    """Says when a session has news, and remembers which ones the model has already been told.

    Args:
        session: whose inbox it is.
        coalesce: seconds that the first news wait for others.
        on_news: called when there are some.
    """

    def __init__(self, session: Session, coalesce: float, on_news: Callable[[], None]) -> None:
        self._session = session
        self._coalesce = coalesce
        self._on_news = on_news
        self._listening: asyncio.Task[None] | None = None
        #: There may be some that no turn has taken.
        self.has_news = False
        #: In the conversation, but its turn has not ended well yet: they are not told again here.
        self.told: set[int] = set()
        #: Dealt with, and not acknowledged yet.
        self.used: set[int] = set()

    def listen(self) -> None:
        """Begin to listen."""
        self._listening = asyncio.create_task(self._listen(), name=f"hermes-chat-inbox {self._session.id}")

    async def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            await end(self._listening)

    async def take(self) -> Sequence[Delivery]:
        """Return what no turn has been told; nothing while the store is away."""
        self.has_news = False
        try:
            await self._ack()
            found = await self._session.pending(MOST + len(self.told))
            fresh = [each for each in found if each.event.seq not in self.told]
            inner = await asyncio.gather(*(each.is_inner() for each in fresh[:MOST]))
            self.used |= {each.event.seq for each, is_it in zip(fresh, inner, strict=False) if is_it}
            await self._ack()
        except StoreUnavailable as error:
            logger.warning("the inbox of session %s has to wait: %s", self._session.id, error)
            self.has_news = True
            return ()
        self.has_news = len(fresh) > MOST
        return [each for each, is_it in zip(fresh, inner, strict=False) if not is_it]

    async def tell(self, *seqs: int) -> None:
        """Note what the model was told in another way: it leaves the inbox with the turn's own news."""
        self.told.update(seqs)

    def settle(self) -> None:
        """Note that a turn has ended well: what was told is dealt with."""
        self.used |= self.told
        self.told.clear()

    async def acknowledge(self) -> None:
        """Take out of the inbox what was dealt with; what cannot be now will be later."""
        try:
            await self._ack()
        except StoreUnavailable:
            self.told |= self.used  # so that it is not told again meanwhile
            self.has_news = True

    async def _ack(self) -> None:
        if self.used:
            await self._session.ack(*self.used)
            self.told -= self.used
            self.used.clear()

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._session.batches(self._coalesce):
                    self.has_news = True
                    self._on_news()
                return  # the Hermes was closed
            except StoreUnavailable:  # it cannot be listened to yet
                await asyncio.sleep(ASK_AGAIN)
            except StoreDamaged as error:
                logger.error("there are no news of session %s any more: %s", self._session.id, error)
                return
