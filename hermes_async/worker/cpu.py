"""How much CPU some processes ask for; where Linux does not tell it, nothing is known: 0."""

from __future__ import annotations

import math
import os
from asyncio import AbstractEventLoop
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


class CpuMeter:
    """Measures, from one reading to the next, for how long threads ran or waited for a core.

    That they wait is what tells a busy pool on a machine that others keep busy, too.

    Args:
        cores: how many the processes may use together.
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._read_at = 0.0
        self._before: dict[str, int] = {}

    def read(self, pids: Iterable[int], now: float) -> float:
        """Return the share of their cores that these processes have asked for; 1 is all, more is too much."""
        spent = dict(_threads(pids))
        asked = sum(
            wanted - self._before[thread] for thread, wanted in spent.items() if thread in self._before
        )
        elapsed = now - self._read_at
        self._read_at, self._before = now, spent
        return asked / 1e9 / (elapsed * self._cores) if elapsed > 0 else 0.0


def _threads(pids: Iterable[int]) -> Iterator[tuple[str, int]]:
    """Yield for each thread the nanoseconds in which it has run, or wanted to."""
    for pid in pids:
        with suppress(OSError, ValueError):  # it has ended, or a thread of it has
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    ran, waited, _ = file.read().split()
                yield thread, int(ran) + int(waited)


class Pulse:
    """Whether an event loop in another thread answers from one reading to the next."""

    def __init__(self) -> None:
        self._answered = True

    def read(self, loop: AbstractEventLoop) -> bool:
        """Return whether it has answered the last time, and if so, ask again."""
        answered, self._answered = self._answered, False
        if answered:
            loop.call_soon_threadsafe(self._answer)
        return answered

    def _answer(self) -> None:
        self._answered = True


def cores(root: Path = Path("/")) -> float:
    """Return how many cores this process may use: those it is bound to, or less if its container says so."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(float(bound), _quota(root))


def _quota(root: Path) -> float:
    """Return the limit of our control group (version 2) in cores."""
    with suppress(OSError, ValueError, StopIteration):
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        ours = next(line for line in groups if line.startswith("0::")).removeprefix("0::")
        allowed, period = (root / "sys/fs/cgroup" / ours.lstrip("/") / "cpu.max").read_text().split()
        return float(allowed) / float(period)  # "max" is no number: no limit
    return math.inf
