"""When a post is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_async.adapters.webhook.schedule import DELAYS, JITTER, LONGEST_WISH, delay_after, retry_after

NOW = 1_700_000_000.0
HOUR = 3600


def test_ten_tries_over_more_than_three_days() -> None:
    assert DELAYS == (5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
    for failures, planned in enumerate(DELAYS, 1):
        drawn = {delay_after(failures) for _ in range(50)}
        assert len(drawn) > 1
        assert all(delay is not None and abs(delay - planned) <= planned * JITTER for delay in drawn)
    assert delay_after(10) is None


def test_a_receiver_may_ask_for_more_but_not_for_ever_and_not_for_less() -> None:
    assert delay_after(1, 60.0) == 60.0
    assert delay_after(1, 1e9) == LONGEST_WISH
    assert (delay_after(4, 1.0) or 0.0) > HOUR
    assert delay_after(10, 60.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 5000, 999_999_999),
        ("Tue, 14 Nov 2023 22:15:00 GMT", 100),
        ("Tue, 14 Nov 2023 22:15:00", 100),
        ("Tue, 14 Nov 2020 22:15:00 GMT", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("Tue, 99 Nov 99999999 22:15:00 GMT", 0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


@given(
    st.text()
    | st.from_regex(r"[A-Z][a-z]{2}, [-0-9]{1,9} [A-Z][a-z]{2} \d{1,9} [0-9:]{0,12} [A-Z+0-9-]{0,6}")
)
def test_no_header_can_break_a_sender(header: str) -> None:
    assert retry_after(header, NOW) >= 0
