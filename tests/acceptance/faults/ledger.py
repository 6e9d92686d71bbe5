"""What really happened, written outside Redis by those to whom it happened, in one file of lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

#: Where every process of a stage finds the file.
VARIABLE = "FAULTS_LEDGER"


class Line(NamedTuple):
    """Something that happened at a time of the machine's monotonic clock, in some process."""

    at: float
    pid: int
    what: str
    facts: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Read a fact as if it were a field; None when it was not told."""
        return self.facts.get(name)


class Ledger:
    """An append-only file: one write a line, so that a kill leaves whole lines and no buffer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @classmethod
    def of_process(cls) -> Ledger:
        """Return the ledger of the stage to which this process belongs."""
        return cls(Path(os.environ[VARIABLE]))

    def write(self, what: str, **facts: Any) -> None:
        """Note something; when this returns, a kill of this process cannot undo it."""
        line = json.dumps([time.monotonic(), os.getpid(), what, facts])
        os.write(self._file, f"{line}\n".encode())

    @property
    def size(self) -> int:
        """Bytes so far: where to read on."""
        return self.path.stat().st_size

    def read(self, start: int = 0) -> Iterator[Line]:
        """Yield what everybody has written so far, from a place on."""
        with self.path.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if line.endswith(b"\n"):  # else somebody is just writing it
                    yield Line(*json.loads(line))

    def close(self) -> None:
        """Give back the file."""
        os.close(self._file)
