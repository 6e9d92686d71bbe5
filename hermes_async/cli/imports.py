"""What keeps the imports of users' modules apart from the output of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from threading import Timer
from typing import Final

from hermes_async.core.importing import GUARD

#: Seconds after which an import that has not ended is told of.
PATIENCE: Final = 2.0


@contextmanager
def imports_guarded() -> Iterator[None]:
    """Keep what modules print when they are imported out of stdout, and tell of those that take long."""
    token = GUARD.set(_guard)
    try:
        yield
    finally:
        GUARD.reset(token)


@contextmanager
def _guard(module: str) -> Iterator[None]:
    late = Timer(PATIENCE, print, (f"hermes-async: importing {module} ...",), {"file": sys.stderr})
    late.daemon = True
    late.start()
    try:
        with redirect_stdout(sys.stderr), _descriptor_redirected():
            yield
    finally:
        late.cancel()


@contextmanager
def _descriptor_redirected() -> Iterator[None]:
    """Send to stderr what is written past Python, for example by a program that the module runs."""
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        yield
        return
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
