"""Waking everybody who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio

from hermes_async.domain.events import AnyEvent


class Nudges:
    """Wakes everybody who waits at the moment."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> Sequence[AnyEvent] | None:
        with anyio.move_on_after(timeout):
            await self._event.wait()
        return ()
