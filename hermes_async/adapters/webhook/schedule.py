"""When a post that failed is tried again, and when no more."""

from __future__ import annotations

import random
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_MINUTE, _HOUR = 60.0, 3600.0
#: Seconds after the first, second, ... failed try; after the last of them there is one more try.
DELAYS: Final = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24)),
)
#: By how much of itself a delay varies, so that what failed together does not come back together.
JITTER: Final = 0.1
#: Seconds; a receiver cannot ask for more.
LONGEST_WISH: Final = 24 * _HOUR


def delay_after(failures: int, wish: float = 0.0) -> float | None:
    """Return the seconds to wait after so many failed tries, at least `wish`; None: that was the last."""
    if failures > len(DELAYS):
        return None
    planned = DELAYS[failures - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    return max(planned, min(wish, LONGEST_WISH))


def retry_after(header: str | None, now: float) -> float:
    """Return the seconds that a `Retry-After` asks for; 0 for none, and for what nobody can read."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
