"""A URL that fails again and again is left alone for a while, by all workers."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Final

from hermes_async.core.callbacks import Failed, Outcome, Succeeded
from hermes_async.core.ledger import Endpoints
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable

#: Failures in a row that close an endpoint.
THRESHOLD: Final = 20
#: Seconds for which it is closed then; after that, one call tries it, and closes it again if it fails.
PAUSE: Final = 60.0
#: What is put off comes back within so much more of its time, not all at once.
SPREAD: Final = 0.25


class Breaker:
    """Asks and tells what all workers know of an endpoint. Without the store, every endpoint is open.

    Args:
        endpoints: where they know it.
        probe: seconds that the call may take which tries whether an endpoint works again.
    """

    def __init__(self, endpoints: Endpoints, probe: float) -> None:
        self._endpoints = endpoints
        self._probe = probe

    async def delay(self, endpoint: str) -> float:
        """Return for how many seconds to put a post off; 0: it may be tried now."""
        closed = 0.0
        with suppress(StoreUnavailable, StoreDamaged):
            closed = await self._endpoints.endpoint_closed_for(endpoint, THRESHOLD, self._probe)
        return closed * random.uniform(1, 1 + SPREAD)

    async def note(self, endpoint: str, outcome: Outcome) -> None:
        """Note how a try went. One that was refused or is unwanted says nothing of the endpoint's health."""
        with suppress(StoreUnavailable, StoreDamaged):
            if isinstance(outcome, Succeeded):
                await self._endpoints.endpoint_ok(endpoint)
            elif isinstance(outcome, Failed):
                await self._endpoints.endpoint_failed(endpoint, THRESHOLD, PAUSE)
