"""Where something with connections may be used: nobody answers who is asked from elsewhere."""

from __future__ import annotations

import asyncio
import os

from hermes_async.domain.errors import Closed, UserError


class Home:
    """The event loop and the process in which something was opened, until it is closed.

    Args:
        what: is at home there, for messages.
        cure: how one gets another.
        by_itself: its first use opens it.
    """

    def __init__(
        self, what: str = "Hermes", cure: str = "with `connect()`", *, by_itself: bool = True
    ) -> None:
        self.is_closed = False
        self._what = what
        self._cure = cure
        self._by_itself = by_itself
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def open(self) -> None:
        """Be at home here, for the first time or again.

        Raises:
            UserError: it is open, or no event loop of asyncio runs here.
        """
        if self._loop is not None and not self.is_closed:
            raise UserError(f"this {self._what} is open already: open another, {self._cure}")
        self._loop, self._pid = self._running(), os.getpid()
        self.is_closed = False

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop.

        Raises:
            Closed: it is too late.
            UserError: it is too early, or this is another loop or process than that in which it was opened.
        """
        if self.is_closed:
            raise self.closed()
        if self._loop is None:
            if not self._by_itself:
                raise UserError(f"this {self._what} is not open yet: open it {self._cure}")
            self.open()
        elif self._pid != os.getpid():  # we were forked: its sockets are the other's
            raise self._elsewhere("process")
        elif self._loop is not self._running():
            raise self._elsewhere("event loop")
        assert self._loop is not None
        return self._loop

    def closed(self) -> Closed:
        """Return the error of whoever comes too late."""
        return Closed(f"this {self._what} is closed: open another, {self._cure}")

    def _elsewhere(self, where: str) -> UserError:
        return UserError(f"this {self._what} belongs to another {where}: open one here, {self._cure}")

    def _running(self) -> asyncio.AbstractEventLoop:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            raise UserError(
                f"a {self._what} needs asyncio, of which no event loop runs here: use it in a coroutine that "
                "`asyncio.run` runs (trio cannot)"
            ) from None
