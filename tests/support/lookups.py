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


def crowd(n: int) -> int:
    """Count how many are here at once."""
    time.sleep(0.05)  # long enough for others to come, if they may
    return sum(each.name == "tool crowd" for each in threading.enumerate())
