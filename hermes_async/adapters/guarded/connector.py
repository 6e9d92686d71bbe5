"""Connections to the addresses that were checked, and to nothing else."""

from __future__ import annotations

import errno
import socket
from ssl import SSLContext
from typing import Any

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from hermes_async.adapters.guarded.addresses import is_public
from hermes_async.adapters.guarded.places import Errand, Target, check_address


def connector(to: Target, resolver: AbstractResolver, tls: SSLContext | bool) -> TCPConnector:
    """Return what connects to the addresses that were checked, and to nothing else.

    The name is looked up once, and each socket's address is checked again: that of a URL is not looked up.
    """

    def opened(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not to.allowed and not is_public(address[0]):
            raise PermissionError(errno.EACCES, f"{address[0]} is not a public address")
        return socket.socket(family, kind, protocol)

    return TCPConnector(
        resolver=resolver if to.allowed else _Checked(resolver, to.errand),
        use_dns_cache=False,
        force_close=True,
        ssl=tls,
        socket_factory=opened,
    )


class _Checked(AbstractResolver):
    """Looks a name up, and refuses it when any of its addresses is not public."""

    def __init__(self, resolver: AbstractResolver, errand: Errand) -> None:
        self._resolver, self._errand = resolver, errand

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            check_address(one["host"], f"{host}:{port}", self._errand)
        return found

    async def close(self) -> None:
        """The resolver belongs to whoever made it."""
