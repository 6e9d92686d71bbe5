"""Tools for declared agents in tests."""

from __future__ import annotations

import asyncio
import threading
import time

#: `gate` waits for it.
opened = threading.Event()


async def capital(country: str) -> str:
    """Name the capital of a country."""
    return {"France": "Paris"}.get(country, "unknown")


def population(city: str) -> int:
    """Count who lives in a city."""
    return {"Paris": 2_100_000}[city]


async def gate() -> str:
    """Wait until the test opens it."""
    while not opened.is_set():
        await asyncio.sleep(0.01)
    return "open"


#: The calls of `crowd` that are under way.
_here: set[int] = set()


def crowd(n: int) -> int:
    """Count how many are here at once."""
    _here.add(n)
    time.sleep(0.05)  # long enough for others to come, if they may
    try:
        return len(_here)  # a thread outlives its call a little, so threads are not counted
    finally:
        _here.remove(n)
