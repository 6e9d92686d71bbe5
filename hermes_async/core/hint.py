"""What wakes a reader up."""

from __future__ import annotations

from typing import Protocol


class Hint(Protocol):
    """A nudge that there may be news; it may come for nothing, and may be lost."""

    async def wait(self, timeout: float) -> None:
        """Return at the next nudge, or after `timeout` seconds."""
        ...
