"""Which endpoints of webhooks are left alone for a while, in memory."""

from __future__ import annotations

from collections.abc import Callable

from hermes_async.core.ledger import ENDPOINT_MEMORY


class MemoryEndpoints:
    """Failures in a row, by endpoint.

    Args:
        now: the clock, in Unix seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: How many, and until when they count.
        self._failures: dict[str, tuple[int, float]] = {}
        self._closed_until: dict[str, float] = {}

    async def endpoint_failed(self, endpoint: str, threshold: int, pause: float) -> float:
        now = self._now()
        count, until = self._failures.get(endpoint, (0, 0.0))
        count = count + 1 if until > now else 1
        self._failures[endpoint] = (count, now + pause + ENDPOINT_MEMORY)
        if count >= threshold:
            self._closed_until[endpoint] = now + pause
        return self._left(endpoint)

    async def endpoint_ok(self, endpoint: str) -> None:
        self._failures.pop(endpoint, None)
        self._closed_until.pop(endpoint, None)

    async def endpoint_closed_for(self, endpoint: str, threshold: int, probe: float) -> float:
        left, now = self._left(endpoint), self._now()
        count, until = self._failures.get(endpoint, (0, 0.0))
        if not left and count >= threshold and until > now:
            self._closed_until[endpoint] = now + probe
        return left

    def _left(self, endpoint: str) -> float:
        return max(0.0, self._closed_until.get(endpoint, 0.0) - self._now())
