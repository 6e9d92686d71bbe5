"""Waterfalls as they are drawn on a terminal and printed in a pipe."""

from __future__ import annotations

import click

from hermes_async.cli.waterfall import drawn, plain
from hermes_async.domain.timeline import Stretch

ROWS = [
    Stretch("task research", 100.0, 110.0, note="completed"),
    Stretch("wait", 100.0, 102.0, depth=1),
    Stretch("attempt 1", 102.0, 105.0, depth=1, fault="ValueError: no"),
    Stretch("message", 104.0, 104.0, depth=2),
    Stretch("attempt 2", 105.0, None, depth=1),
]


def test_bars_are_to_scale_and_errors_are_marked() -> None:
    lines = [click.unstyle(line) for line in drawn(ROWS, now=110.0, width=60)]
    assert lines == [
        "task research █████████████████████    10 s completed",
        "  wait        ████▎                   2.0 s",
        "  attempt 1       ██████▌             3.0 s ✗ ValueError: no",
        "    message           ▍                0 ms",
        "  attempt 2             ███████████   5.0 s goes on",
    ]


def test_every_line_fits_the_terminal() -> None:
    rows = [*ROWS, Stretch("x" * 300, 101.0, 102.0, depth=3)]
    for width in (60, 80, 200):
        assert max(len(click.unstyle(line)) for line in drawn(rows, 110.0, width)) <= width


def test_a_narrow_terminal_is_no_reason_to_fail() -> None:
    for width in range(60):
        assert len(drawn(ROWS, 110.0, width or None)) == len(ROWS)


def test_lines_in_a_pipe_are_separated_by_tabs() -> None:
    assert plain(ROWS, now=110.0)[2] == "  attempt 1\t2.000\t3.000\t✗ ValueError: no"


def test_what_a_name_says_cannot_play_tricks_on_a_terminal() -> None:
    (line,) = drawn([Stretch("a\x1b[2Jb\nc", 1.0, 2.0)], now=3.0, width=80)
    assert "\x1b[2J" not in line
    assert "\n" not in line


def test_nothing_draws_nothing() -> None:
    assert (drawn([], 0.0), plain([], 0.0)) == ([], [])
