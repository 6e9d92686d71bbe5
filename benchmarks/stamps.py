"""Moments that the tasks themselves write down, the same way on both sides, whatever becomes of results.

One line per task in one file, by `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

#: The variable that names the file.
VARIABLE = "BENCH_STAMPS"
_LOOK_EVERY = 0.05


class Stamp(NamedTuple):
    """When a task's body began and ended."""

    began: float
    ended: float


def stamp(number: int, began: float) -> None:
    """Write down that task `number` ran from `began` until now."""
    os.write(_file(), f"{number} {began!r} {time.monotonic()!r}\n".encode())


@cache
def _file() -> int:
    return os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Stamps:
    """Reads what is written from now on."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path
        self._read_to = path.stat().st_size
        self._found: dict[int, Stamp] = {}

    def wait(self, count: int, timeout: float) -> dict[int, Stamp]:
        """Return the stamps of `count` tasks once all of them are there.

        Raises:
            TimeoutError: some are missing.
        """
        deadline = time.monotonic() + timeout
        while len(self._found) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(self._found)} of {count} tasks within {timeout:g} s")
            time.sleep(_LOOK_EVERY)
            self._read_on()
        return dict(self._found)

    def _read_on(self) -> None:
        """Read what is new, up to the last whole line: whoever waits must cost next to nothing."""
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            text, _, _ = file.read().rpartition(b"\n")
        if text:
            self._read_to += len(text) + 1
            words = (line.split() for line in text.splitlines())
            self._found |= {int(number): Stamp(float(began), float(ended)) for number, began, ended in words}
