"""A stretch of a session's log, as a store reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hermes_async.domain.events import AnyEvent


@dataclass(frozen=True)
class Page:
    """A stretch of a session's log; `gap` names the first and last `seq` that were asked for but trimmed."""

    events: Sequence[AnyEvent]
    gap: tuple[int, int] | None = None
    #: It ends before a hole of the log, which shows as the gap of the next page.
    is_cut: bool = False

    @classmethod
    def of(cls, found: Sequence[AnyEvent], after: int) -> Page:
        """Return the page that begins with what was found after a `seq`."""
        if not found:
            return cls(found)
        first = found[0].seq
        dense = [event for seq, event in enumerate(found, first) if event.seq == seq]
        return cls(dense, (after + 1, first - 1) if first > after + 1 else None, len(dense) < len(found))
