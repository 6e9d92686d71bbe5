"""Looking up names that somebody else has chosen: one that never answers holds up nobody."""

from __future__ import annotations

import socket
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from hermes_async.core.threads import run_in_thread


class Lookup(AbstractResolver):
    """Looks each name up in a thread of its own: those of the loop are few, and all others need them."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await run_in_thread(ask, "look-up")
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=of,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of, _, protocol, _, address in found
            if not any(address[3:])  # of one link only: that is no public server
        ]

    async def close(self) -> None:
        """Nothing is kept."""
