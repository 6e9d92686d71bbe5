"""Child processes that cannot outlive their parent, and that a Ctrl-C of the terminal does not reach."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


async def launch(
    argv: Sequence[str], env: Mapping[str, str], output: int, orphan_signal: int
) -> asyncio.subprocess.Process:
    """Start a child in a process group of its own. Call it in the main thread: the kernel watches that.

    Args:
        argv: what to run.
        env: what to add to our environment.
        output: the file descriptor of its stdout and stderr.
        orphan_signal: what the kernel sends it when we die, however we die (Linux).
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, **env},
        process_group=0,
        preexec_fn=_leashed(orphan_signal, os.getpid()) if _LIBC else None,
    )


def _leashed(orphan_signal: int, parent: int) -> Callable[[], None]:
    def leash() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return leash


def signal_group(leader: int, number: int) -> None:
    """Send a signal to a child and to everything it has started in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def signal_one(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the child itself, which knows how to stop its own."""
    with suppress(ProcessLookupError):
        process.send_signal(number)


def how_it_ended(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
