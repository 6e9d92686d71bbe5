"""Where a post may go: to public servers and to what is allowed by name, whatever a URL or the DNS says."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from ssl import SSLContext
from typing import Any, Final

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

PORTS: Final = (443, 8443)
ALLOW: Final = "HERMES_WEBHOOK_ALLOW"

#: What C libraries read as an IPv4 address, though it is not written like one: 127.1, 0x7f000001, 0177.0.0.1.
_ODD = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$", re.ASCII | re.IGNORECASE)
_NAT64 = ip_network("64:ff9b::/96")
#: What is assigned of IPv6 today.
_UNICAST = ip_network("2000::/3")
#: Global by number, and yet no public server: protocols, tunnels, documentation, and Azure's own host.
_SPECIAL = [
    ip_network(text)
    for text in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
]


class Refused(Exception):
    """Nothing is posted there; the message says why, and what can be done."""


@dataclass(frozen=True)
class Target:
    """Where to post, checked as far as that can be done without a look at the DNS."""

    url: URL
    #: Its host and port are on the list of the allowed: any address will do.
    allowed: bool


def target(text: str, allow: Collection[str]) -> Target:
    """Check the URL of a webhook.

    Args:
        text: the URL.
        allow: `host:port` of servers that may be on private networks, and may be spoken to without TLS.

    Raises:
        Refused: nothing may be posted there.
    """
    try:
        url = URL(text)
        place = f"{url.host_subcomponent}:{url.port}"
    except Exception:  # yarl lets through more than its ValueError
        raise Refused("the webhook's URL is not one; correct it in agents.yaml") from None
    if url.raw_user is not None or url.raw_password is not None:
        raise Refused("the webhook's URL names a user; sign with `secret` instead")
    if place in allow and url.scheme in ("https", "http"):
        return Target(url, allowed=True)
    if not url.raw_host or url.scheme != "https":
        raise Refused(f"a webhook is posted over https://, or to a server that {ALLOW} names ({place})")
    if url.port not in PORTS:
        raise Refused(f"a webhook is posted to port 443 or 8443, or to a server that {ALLOW} names ({place})")
    if _is_address(url.raw_host):
        check_address(url.raw_host, place)
    elif _ODD.search(url.raw_host):
        raise Refused(f"{place} is an address in disguise; write a name, or the plain address")
    return Target(url, allowed=False)


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
        resolver=resolver if to.allowed else _Checked(resolver),
        use_dns_cache=False,
        force_close=True,
        ssl=tls,
        socket_factory=opened,
    )


class _Checked(AbstractResolver):
    """Looks a name up, and refuses it when any of its addresses is not public."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            check_address(one["host"], f"{host}:{port}")
        return found

    async def close(self) -> None:
        """The resolver belongs to whoever made it."""


def check_address(address: str, place: str) -> None:
    """Raise Refused unless the address is a public one; `place` is the `host:port` that led to it."""
    if not is_public(address):
        raise Refused(
            f"{place} is at {address}, which is no public address; if it is yours, put {place} into {ALLOW}"
        )


def is_public(address: str) -> bool:
    """Tell whether an address is that of a public server, looking through what stands for an IPv4 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.scope_id is not None:
            return False
        inner = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None)
        if inner is None and ip not in _UNICAST:
            return False
        ip = inner or ip
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
