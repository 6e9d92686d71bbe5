"""What wakes a reader up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hermes_async.domain.events import AnyEvent


class Hint(Protocol):
    """A nudge that there may be news; it may come for nothing, and may be lost."""

    async def wait(self, timeout: float) -> Sequence[AnyEvent] | None:
        """Return at the next nudge, or after `timeout` seconds.

        The nudges of a session may bring the events themselves, oldest first: then there is nothing to look
        for, if they are what comes next. An empty list: look. None: there was a time in which nobody
        listened, so the store may have been anything meanwhile.
        """
        ...
