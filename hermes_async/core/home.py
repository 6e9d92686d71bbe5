"""Where something with connections may be used: nobody answers who is asked from elsewhere."""

from __future__ import annotations

import asyncio
import os

from hermes_async.domain.errors import Closed, UserError


class Home:
    """The event loop and the process of the first use, until the end.

    Args:
        what: is at home there, for messages.
        cure: how one gets another.
    """

    def __init__(self, what: str = "Hermes", cure: str = "with `connect()`") -> None:
        self.is_closed = False
        self._what = what
        self._cure = cure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop.

        Raises:
            Closed: it is too late.
            UserError: this is not the loop of the first use, or not its process, or no loop of asyncio.
        """
        if self.is_closed:
            raise self.closed()
        if self._pid != os.getpid():
            if self._loop is not None:  # we were forked: its sockets are the other's
                raise self._elsewhere("process")
            self._loop, self._pid = self._running(), os.getpid()
        elif self._loop is not self._running():
            raise self._elsewhere("event loop")
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
