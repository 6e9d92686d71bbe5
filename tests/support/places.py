"""URLs and names that lead to this machine or to a private network, and a DNS that says so."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

PUBLIC = "93.184.215.14"
#: Names, and what the DNS says of them, one answer after the other; the last one stays.
NAMES: dict[str, list[list[str]]] = {
    "localhost.": [["127.0.0.1"]],
    "inside.test": [["127.0.0.1"]],
    "intranet.test": [["10.1.2.3"]],
    "mixed.test": [[PUBLIC, "127.0.0.1"]],
    "mixed6.test": [["2606:4700::1111", "::1"]],
    "six.test": [["::1"]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "nat64.test": [["64:ff9b::7f00:1"]],
    "metadata.test": [["169.254.169.254"]],
    "xn--bcher-kva.test": [["127.0.0.1"]],
}

#: Every one of these means this machine or a private network; PORT is the sinkhole's.
ADDRESSES = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "2130706433",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "%31%32%37.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "localhost",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.1.1",
    "240.0.0.1",
    "255.255.255.255",
    *NAMES,
    "bücher.test",
]
URLS = [
    *(f"https://{host}:PORT/hook" for host in ADDRESSES),
    "http://127.0.0.1:PORT/",
    "http://example.com/",
    "https://example.com:22/",
    "https://example.com:0/",
    "https://user@127.0.0.1:PORT/",
    f"https://{PUBLIC}:8443@127.0.0.1:PORT/",
    "https://127.0.0.1:PORT@example.com/",
    "https://:hush@127.0.0.1:PORT/",
    "https://example.com\\@127.0.0.1:PORT/",
    "https://127.0.0.1:PORT\\@example.com/",
    "https://[::1/",
    "https://é&.319a]%[_&+9@",
    "https://:PORT/",
    "https:///hook",
    "https:127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
    "ftp://127.0.0.1:PORT/",
    "unix:///run/redis.sock",
    "ws://127.0.0.1:PORT/",
    "tcp://127.0.0.1:PORT/",
    "",
]


@dataclass
class Names(AbstractResolver):
    """A DNS of few names, over what this machine resolves itself (numbers in every form among it)."""

    names: dict[str, list[list[str]]] = field(default_factory=lambda: {**NAMES})
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.names:
            return await ThreadedResolver().resolve(host, port, socket.AF_UNSPEC)
        answers = self.names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [result(host, address, port) for address in found]

    async def close(self) -> None:
        pass


def result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": family,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST,
    }
