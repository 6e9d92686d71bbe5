"""`hermes-async up` around a demo: started, waited for, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from hermes_async.relay.auth import mint
from hermes_async.relay.secret import relay_secret
from hermes_async.settings import Settings

#: Seconds within which everything must be up, and down again.
PATIENCE = 60.0


@contextmanager
def running_up(folder: Path, console: Console) -> Iterator[None]:
    """Run `hermes-async up` on a free port; its output goes to `up.log` in the folder."""
    os.environ["HERMES_RELAY__PORT"] = str(_free_port())
    log = folder / "up.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        up = subprocess.Popen([sys.executable, "-m", "hermes_async.cli", "up"], stdout=output, stderr=output)
    try:
        _wait(up, log)
        console.print(f"everything is up after {time.perf_counter() - began:.1f} s\n", highlight=False)
        yield
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(PATIENCE)


def relay_token(settings: Settings, session_id: str) -> str:
    """Return a token with which a client may hear one session for an hour."""
    return mint(relay_secret(settings), sub="demo", sessions=[session_id], ttl=3600)


def _wait(up: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while "Ctrl-C" not in log.read_text(errors="replace"):
        if up.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"`hermes-async up` did not come up:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
