"""Whose turn it is: services of others are asked by few threads of a process at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hermes_async.domain.errors import ToolFailed


class Turns:
    """Lets so many threads ask at once; the others wait for their turn.

    Args:
        who: is asked, in a sentence.
        at_once: threads.
    """

    def __init__(self, who: str, at_once: int) -> None:
        self._who = who
        self._free = threading.BoundedSemaphore(at_once)

    @contextmanager
    def taken(self, patience: float) -> Iterator[None]:
        """Wait for a turn, at most `patience` seconds, and give it back at the end.

        Raises:
            ToolFailed: it has not come in time.
        """
        if not self._free.acquire(timeout=patience):
            raise ToolFailed(f"too many wait to ask {self._who}; go on without it, or try again later")
        try:
            yield
        finally:
            self._free.release()
