"""Which addresses are those of public servers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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


def is_address(host: str) -> bool:
    """Tell whether a host is written as an address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
