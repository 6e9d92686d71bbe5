"""Where the private Redis server listens, remembered in the redis.conf that it is started with."""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from hermes_async.adapters.embedded_redis.binary import OWN_SERVER, ServerBinary
from hermes_async.domain.errors import EmbeddedServerError

HOST = "127.0.0.1"

_PORTS = range(16384, 32768)  # below the ephemeral range: a client that reconnects must not meet itself

# Paths are relative to the working directory (the state directory): nothing to quote, and it may be moved.
_CONF = """\
# Written by hermes_async at every start: changes are lost.
# home {home}
# program {program}
bind 127.0.0.1
port {port}
requirepass {password}
daemonize yes
pidfile redis.pid
logfile redis.log
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
"""


@dataclass(frozen=True, slots=True)
class Address:
    """What redis.conf remembers: where the server listens, whose it is, and which program wrote the data."""

    port: int
    password: str
    home: str
    program: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"


def choose_address(state: Path, known: Address | None, program: ServerBinary) -> Address:
    """Keep port and password, so that live users reconnect; but not those of a copied directory."""
    if known is not None and known.home == str(state) and _is_free(known.port):
        return Address(known.port, known.password, known.home, str(program.path))
    return Address(_free_port(), secrets.token_hex(24), str(state), str(program.path))


def write_conf(state: Path, address: Address) -> None:
    """Write redis.conf whole or not at all, for its owner only."""
    draft = state / "redis.conf.new"
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        text = _CONF.format(
            home=address.home, program=address.program, port=address.port, password=address.password
        )
        file.write(os.fsencode(text))
    draft.replace(state / "redis.conf")


def read_address(state: Path) -> Address | None:
    """Read what the last start wrote; None if there is nothing, or nothing that makes sense."""
    try:
        text = os.fsdecode((state / "redis.conf").read_bytes())
    except OSError:
        return None
    found = dict(re.findall(r"^(port|requirepass|# home|# program) (.+)$", text, re.MULTILINE))
    try:
        port = int(found["port"])
        return Address(port, found["requirepass"], found["# home"], found["# program"])
    except (KeyError, ValueError):
        return None


def _free_port() -> int:
    for port in random.sample(_PORTS, 100):
        if _is_free(port):
            return port
    raise EmbeddedServerError(f"No free port was found on {HOST}: end what holds them, or {OWN_SERVER}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
