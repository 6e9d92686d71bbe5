"""Batches go to a client past Engine.IO, whose queue has no limit and which makes a task for each packet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hermes_async.relay.wire import EVENTS

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

#: Engine.IO's sign of a message, followed by Socket.IO's of an event, or of an acknowledgement.
#: As much of a message as tells which batch it acknowledges.
ACK_BYTES = 40
_EVENT, _ACK = "42", "43"


class Courier:
    """Writes packets of events straight to a websocket, one at a time, and hears their acknowledgements.

    Args:
        send: writes to the websocket, and returns when it takes more.
        abort: cuts the connection without waiting for the peer; None: the server cannot.
    """

    def __init__(self, send: Send, abort: Callable[[], None] | None) -> None:
        self._send = send
        self._abort = abort
        self._number = 0
        self._awaited: str | None = None
        self._acknowledged: Callable[[], None] | None = None
        #: Somebody has connected over this websocket.
        self.taken = False
        #: It is being hung up on.
        self.leaving = False
        #: The websocket is closed.
        self.gone = asyncio.Event()

    async def carry(self, batch: str, acknowledged: Callable[[], None]) -> None:
        """Send a batch; `acknowledged` is called when the client has it."""
        self._number += 1
        self._awaited = f"{_ACK}{self._number}["
        self._acknowledged = acknowledged
        text = f'{_EVENT}{self._number}["{EVENTS}",{batch}]'
        try:
            await self._send({"type": "websocket.send", "text": text})
        except OSError:  # it is gone; whoever waits for the acknowledgement hears of that
            pass
        except asyncio.CancelledError:  # given up before it was written: nobody will acknowledge it
            self.hears(self._awaited or "")
            raise

    def hears(self, text: str) -> bool:
        """Take a message if it is an acknowledgement; one that nobody waits for is forgotten.

        Args:
            text: the message, or its first `ACK_BYTES`.
        """
        if not text.startswith(_ACK):
            return False
        if self._awaited is not None and text.startswith(self._awaited) and self._acknowledged is not None:
            self._awaited = None
            self._acknowledged()
        return True

    def cut(self) -> None:
        """Cut the connection, if the server can."""
        if self._abort is not None:
            self._abort()

    def cut_unless_taken(self) -> None:
        """Cut it if nobody has connected over it."""
        if not self.taken:
            self.cut()
