"""Whether a relay hears: a server that answers does not prove that its nudges arrive."""

from __future__ import annotations

import asyncio
import logging
from secrets import token_hex

from hermes_async.core.ending import end
from hermes_async.core.hint import Hint
from hermes_async.core.ports import Store
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable

logger = logging.getLogger("hermes.relay")

#: Seconds from one nudge to the next, and without hearing any after which a relay counts as deaf.
EVERY, DEAF_AFTER = 2.0, 8.0


class Ear:
    """Nudges itself through the store, on the way that the nudges of all sessions take, and listens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = f"relay-{token_hex(8)}"
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._listening = asyncio.create_task(self._listen(), name="hermes-relay-ear")

    @property
    def silence(self) -> float:
        """Seconds since it heard itself."""
        return self._loop.time() - self._heard

    def hears(self) -> bool:
        """Tell whether it has heard itself lately."""
        return self.silence < DEAF_AFTER

    async def close(self) -> None:
        """Stop listening."""
        await end(self._listening)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._store.watch(self._name) as hint:
                    while True:
                        await self._try(hint)
            except (StoreUnavailable, StoreDamaged) as exc:
                logger.warning("the relay has not heard itself for %.0f s: %s", self.silence, exc)
                await asyncio.sleep(EVERY)

    async def _try(self, hint: Hint) -> None:
        began = self._loop.time()
        hearing = asyncio.ensure_future(hint.wait(EVERY))
        try:
            await asyncio.sleep(0)
            await self._store.nudge(self._name)
            await hearing
        finally:
            hearing.cancel()
        took = self._loop.time() - began
        if took < EVERY:
            self._heard = self._loop.time()
            await asyncio.sleep(EVERY - took)
