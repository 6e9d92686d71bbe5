"""A program on a terminal of its own: keys go in, and what is drawn can be waited for."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

#: What draws, moves and asks: everything that is not text.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[=>()][0-9A-B]?|\r")
PATIENCE = 30.0


class Terminal:
    """Runs a program whose stdin, stdout and stderr are a pty.

    Args:
        args: the command.
        cwd: its folder.
        env: added to ours.
        size: rows and columns.
    """

    def __init__(
        self,
        args: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        size: tuple[int, int] = (30, 100),
    ) -> None:
        self._master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        # Nobody answers where the cursor is, so nobody is to ask.
        known = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **(env or {})}
        self.process = subprocess.Popen(
            list(args),
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=cwd,
            env={**os.environ, **known},
            start_new_session=True,
        )
        os.close(child)
        self.raw = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        os.close(self._master)

    @property
    def text(self) -> str:
        """All that was ever drawn, without what draws it."""
        return _CONTROL.sub("", self.raw)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def enter(self, line: str) -> None:
        """Type a line."""
        self.type(f"{line}\r")

    def wait_for(self, wanted: str, timeout: float = PATIENCE, *, after: int = 0) -> int:
        """Wait until a text has been drawn beyond a place, and return the place behind it."""
        deadline = time.monotonic() + timeout
        while (found := self.text.find(wanted, after)) < 0:
            left = deadline - time.monotonic()
            assert left > 0 and self._read(left), f"{wanted!r} was never drawn:\n{self.text}"
        return found + len(wanted)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the program's end and return its exit code."""
        deadline = time.monotonic() + timeout
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, timeout: float) -> bool:
        """Read what comes within some seconds; False: the terminal is closed, or the time is over."""
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # EIO: the other side is closed
            return False
        self.raw += chunk.decode(errors="replace")
        return bool(chunk)
