"""Hosts with a network that a test can cut: network namespaces behind a bridge of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest


class Host:
    """One host; what runs on it reaches the test's machine at `gateway`, and nobody else."""

    def __init__(self, net: str, number: int) -> None:
        self.name, self._link = f"{net}-{number}", f"{net}v{number}"

    def argv(self, args: Sequence[str]) -> list[str]:
        """The command that runs another one here."""
        return ["ip", "netns", "exec", self.name, *args]

    def cut(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """As before."""
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        """Take it away; its namespace goes with the last process in it."""
        for words in (("link", "del", self._link), ("netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):  # it was not made, or is gone
                _ip(*words)

    def make(self, bridge: str, address: str) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._link, "master", bridge, "up")
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _ip("-n", self.name, *words.split())


class Network:
    """So many hosts, and their way to this machine."""

    def __init__(self, hosts: int) -> None:
        number = os.getpid() % 62_500
        subnet = f"10.{number // 250}.{number % 250}"
        self._bridge = f"hm{number}"
        self.gateway = f"{subnet}.254"
        self.hosts = [Host(self._bridge, each) for each in range(1, hosts + 1)]
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for each, host in enumerate(self.hosts, start=1):
            host.make(self._bridge, f"{subnet}.{each}")

    def close(self) -> None:
        """Take everything away."""
        for host in self.hosts:
            host.remove()
        _ip("link", "del", self._bridge)


def network(hosts: int) -> Iterator[Network]:
    """The body of a fixture; without the right to make hosts its test is skipped, in CI as well."""
    try:
        _ip("netns", "list")
        net = Network(hosts)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"no hosts can be made here, which needs iproute2 and root: {exc}")
    try:
        yield net
    finally:
        net.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
