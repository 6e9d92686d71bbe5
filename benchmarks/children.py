"""Child processes of a benchmark: each in a group of its own, all gone when the benchmark ends."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

#: The folder of the project.
ROOT = Path(__file__).parents[1]
_WORDS = 2_000
_PR_SET_PDEATHSIG = 1
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """One process, with its output in a file."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**_inherited(), **env},
                cwd=ROOT,
                process_group=0,
                preexec_fn=_leash if _LIBC else None,
            )

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait for a condition.

        Raises:
            RuntimeError: it did not come true, or the process ended.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.log.stem} is not ready:\n{self.said[-_WORDS:]}")
            time.sleep(0.02)

    @property
    def processes(self) -> list[psutil.Process]:
        """The process and everything it has started."""
        first = psutil.Process(self._popen.pid)
        return [first, *first.children(recursive=True)]

    @property
    def memory(self) -> float | None:
        """Bytes of all its processes (PSS: each shared page counts once); None where nobody can tell."""
        sizes = [getattr(each.memory_full_info(), "pss", 0) for each in self.processes]
        return float(sum(sizes)) or None

    def signal(self, number: int) -> None:
        """Send a signal to it and to everything it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def kill(self) -> None:
        """End it and everything it has started; a second time does nothing."""
        self.signal(signal.SIGKILL)
        self._popen.wait(10)


@contextmanager
def paused(*children: Child) -> Iterator[None]:
    """Stop processes where they are for as long as the context lasts: they take no processor time."""
    for child in children:
        child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            child.signal(signal.SIGCONT)


def _inherited() -> dict[str, str]:
    """Return our environment without what somebody has told hermes_async for other purposes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HERMES_")}


def _leash() -> None:
    """Have the kernel kill this child when the benchmark dies, however that happens."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """Return a loopback port that nobody uses just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def run_python(source: str, env: Mapping[str, str]) -> str:
    """Run a few lines in a fresh interpreter and return what they print.

    Raises:
        RuntimeError: they failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env={**_inherited(), **env},
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-_WORDS:])
    return done.stdout
