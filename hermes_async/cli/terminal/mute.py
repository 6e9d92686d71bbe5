"""A parent without a model: it has no words of its own, and passes on what its tasks have to say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, Self

from hermes_async.core.ending import end
from hermes_async.core.feed import ASK_AGAIN
from hermes_async.core.session import Session
from hermes_async.domain.errors import InvalidInput, StoreDamaged, StoreUnavailable
from hermes_async.domain.events import AnyEvent

logger = logging.getLogger("hermes.chat")

#: Seconds that the first news wait for others.
COALESCE = 0.05


class Parent(Protocol):
    """Who is talked with."""

    @property
    def is_busy(self) -> bool:
        """Whether it is speaking, or is about to."""
        ...

    @property
    def has_failed(self) -> bool:
        """Whether its model does not answer."""
        ...

    def say(self, text: str) -> object:
        """Say something to it."""
        ...

    def again(self) -> object | None:
        """Have it try again what it could not answer; None: there is nothing."""
        ...

    def interrupt(self) -> bool:
        """Stop it in the middle of an answer; False: it is silent."""
        ...

    async def forget(self) -> None:
        """Begin the conversation anew."""
        ...


class Mute:
    """Tells the news of tasks as they come, and acknowledges what was told.

    Args:
        session: whose inbox it reads.
        why: what is told to whoever talks to it.
        tell: shows one entry of the inbox.
    """

    is_busy = False
    has_failed = False

    def __init__(self, session: Session, why: str, tell: Callable[[AnyEvent], None]) -> None:
        self._session = session
        self._why = why
        self._tell = tell

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen(), name="hermes-chat-news")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await end(self._listening)

    def say(self, text: str) -> None:
        """Say why there is no answer."""
        raise InvalidInput(self._why)

    def again(self) -> None:
        """There is nothing to try again."""

    def interrupt(self) -> bool:
        """It is always silent."""
        return False

    async def forget(self) -> None:
        """There is no conversation."""
        raise InvalidInput(self._why)

    async def _listen(self) -> None:
        while True:
            try:
                async for batch in self._session.batches(COALESCE):
                    for delivery in batch:
                        self._tell(delivery.event)
                    await batch.ack()
            except StoreUnavailable:
                await asyncio.sleep(ASK_AGAIN)
            except StoreDamaged as error:
                logger.error("there are no news of session %s any more: %s", self._session.id, error)
                return
