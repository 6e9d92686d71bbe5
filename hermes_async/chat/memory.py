"""What a chat remembers: the conversation, and which entries of the inbox it has dealt with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import anyio.to_thread

from hermes_async.chat.history import History
from hermes_async.chat.inbox import Inbox
from hermes_async.chat.turn import Turn
from hermes_async.core.session import Delivery

logger = logging.getLogger("hermes.chat")


class Memory:
    """Writes the conversation before anything is acknowledged.

    Args:
        history: the conversation.
        inbox: what turns are about.
        frame: makes one message of deliveries.
    """

    def __init__(self, history: History, inbox: Inbox, frame: Callable[[Sequence[Delivery]], str]) -> None:
        self.history = history
        self.inbox = inbox
        self._frame = frame

    async def open(self) -> None:
        """Go on where the session's last chat ended, and begin to listen.

        Raises:
            InvalidInput: another process has the conversation.
            ConfigError: its file cannot be read.
        """
        await anyio.to_thread.run_sync(self.history.open)
        self.inbox.used = set(self.history.used)
        self.inbox.listen()

    async def close(self) -> None:
        """Listen no more, and let others have the conversation."""
        await self.inbox.close()
        self.history.close()

    async def prompt(self, turn: Turn) -> str | None:
        """Return what the model is told: the news, what it has not answered yet, and what is said now."""
        asked = [text for text in (self.history.unanswered, turn.said) if text]
        if turn.said:
            self.history.unanswered = "\n\n".join(asked)
            await self.write()
        told = [self._frame(turn.news)] if turn.news else []
        return "\n\n".join([*told, *asked]) or None

    async def keep(self, turn: Turn, *, is_told: bool, is_over: bool) -> None:
        """Write what was said, then acknowledge what it was about.

        Args:
            turn: that has ended.
            is_told: the conversation has what the turn began with.
            is_over: nothing of it is to be tried again.
        """
        if is_told:
            self.history.unanswered = None
            self.inbox.told.update(each.event.seq for each in turn.news)
        else:
            self.inbox.has_news |= bool(turn.news)
        if is_over:
            self.history.used = self.inbox.used | self.inbox.told
        if await self.write() and is_over:
            self.inbox.settle()
            await self.inbox.acknowledge()

    async def write(self) -> bool:
        """Write the conversation; False: that is not possible, and whoever looks at the log knows."""
        try:
            await anyio.to_thread.run_sync(self.history.keep)
        except (OSError, ValueError) as error:
            logger.warning("a conversation cannot be written: %s", error)
            return False
        return True
