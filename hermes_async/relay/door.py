"""How many websockets and lasting requests a relay lets in, and how many from one address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any


class Door:
    """Counts who is inside.

    Args:
        total: websockets and lasting requests of the relay.
        per_address: those from one address, which is the proxy's where a proxy does not tell another.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._inside: Counter[str] = Counter()

    def refusal(self, scope: MutableMapping[str, Any]) -> str | None:
        """Return why one more is not let in, or None."""
        if self._inside.total() >= self._total:
            return f"this relay has {self._total} connections, as many as it may; try another one, or later"
        if self._inside[_address(scope)] >= self._per_address:
            return f"your address has {self._per_address} connections to this relay, as many as it may"
        return None

    @contextmanager
    def passed(self, scope: MutableMapping[str, Any]) -> Iterator[None]:
        """Count one for as long as the context lasts."""
        address = _address(scope)
        self._inside[address] += 1
        try:
            yield
        finally:
            self._inside[address] -= 1
            if not self._inside[address]:
                del self._inside[address]


def _address(scope: MutableMapping[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
