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
_LOOK_EVERY = 0.02


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
        self._path = path
        path.touch()
        self._from = path.stat().st_size

    def wait(self, count: int, timeout: float) -> dict[int, Stamp]:
        """Return the stamps of `count` tasks once all of them are there.

        Raises:
            TimeoutError: some are missing.
        """
        deadline = time.monotonic() + timeout
        while len(found := self._read()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(found)} of {count} tasks ended within {timeout:g} s")
            time.sleep(_LOOK_EVERY)
        return found

    def _read(self) -> dict[int, Stamp]:
        with self._path.open("rb") as file:
            file.seek(self._from)
            lines = file.read().decode().splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith("\n")]
        return {int(number): Stamp(float(began), float(ended)) for number, began, ended in words}
