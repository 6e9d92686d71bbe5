"""The window of a session: what its reader has read lately, without a hole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hermes_async.core.page import Page
from hermes_async.domain.events import MessageData, SessionMessage
from hermes_async.relay.window import WINDOW_BYTES, WINDOW_EVENTS, Window


def page(first: int, last: int, text: str = "") -> Page:
    return Page(
        [
            SessionMessage(
                seq=seq, id=str(seq), type="session.message", session_id="s", data=MessageData(text=text)
            )
            for seq in range(first, last + 1)
        ]
    )


def opened(seq: int) -> tuple[Window, Any]:
    reader: Any = SimpleNamespace(seq=seq, listeners=[])
    window = Window(reader)
    return window, reader.listeners[0]


def seqs(window: Window, after: int, limit: int = 10) -> list[int] | None:
    told = window.since(after, limit)
    return None if told is None else [one.seq for one in told]


def test_it_has_what_came_since_it_was_opened_and_tells_when_it_has_not() -> None:
    window, read = opened(5)
    assert (seqs(window, 4), seqs(window, 5), seqs(window, 9)) == (None, [], [])
    read(page(6, 8))
    read(page(9, 20))
    assert seqs(window, 4) is None
    assert seqs(window, 5) == list(range(6, 16))
    assert seqs(window, 17) == [18, 19, 20]
    assert seqs(window, 20) == []


def test_a_hole_or_a_new_count_begins_it_anew() -> None:
    window, read = opened(0)
    read(page(1, 3))
    read(page(7, 8))
    assert (seqs(window, 2), seqs(window, 5), seqs(window, 6)) == (None, None, [7, 8])
    read(page(1, 2))
    assert seqs(window, 0) == [1, 2]


def test_it_is_bounded_in_events_and_in_bytes() -> None:
    window, read = opened(0)
    for start in range(1, 10_000, 100):
        read(page(start, start + 99))
    kept = window.since(10_000 - WINDOW_EVENTS, 10_000)
    assert kept is not None
    assert len(kept) == WINDOW_EVENTS
    assert window.since(10_000 - 3 * WINDOW_EVENTS, 1) is None
    for seq in range(10_001, 10_050):
        read(page(seq, seq, "x" * 60_000))
    assert window.since(10_049 - 3 * WINDOW_BYTES // 60_000, 1) is None
    assert seqs(window, 10_045) == [10_046, 10_047, 10_048, 10_049]
