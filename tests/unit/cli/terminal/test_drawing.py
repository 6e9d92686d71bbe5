"""What a terminal is shown: bars, and the little Markdown of answers; hostile text stays text."""

from __future__ import annotations

import time

import pytest
from prompt_toolkit.utils import get_cwidth

from hermes_async.cli.ids import only
from hermes_async.cli.terminal.bars import MOST, bars, cut
from hermes_async.cli.terminal.board import Row
from hermes_async.cli.terminal.markup import BOLD, CODE, DIM, PLAIN, Markup
from hermes_async.cli.terminal.screen import broken
from hermes_async.domain.errors import UnknownTask
from hermes_async.domain.task import TaskStatus


def drawn(*rows: Row, width: int = 80) -> list[str]:
    return "".join(fragment[1] for fragment in bars(rows, width)).splitlines()


def row(id: str = "t07-abcdefgh", **more: object) -> Row:
    return Row(id, "research", **{"status": TaskStatus.RUNNING, "since": time.time() - 3, **more})  # type: ignore[arg-type]


def test_a_bar_tells_who_how_far_how_long_and_what() -> None:
    (line,) = drawn(row(percent=50.0, message="reading"))
    assert line == " research         t07-abcde ━━━━━━━━━━━━  50%  3.0 s  reading"
    (line,) = drawn(row())
    assert line == " research         t07-abcde ············       3.0 s  running"


def test_who_asks_comes_first_then_who_waits_longest() -> None:
    lines = drawn(
        row("t01-queued00", status=TaskStatus.QUEUED, since=1.0),
        row("t01-young000", since=time.time()),
        row("t01-old00000", since=time.time() - 9),
        row("t01-asks0000", question="which one?"),
    )
    assert [line.split()[1] for line in lines] == ["t01-asks0", "t01-old00", "t01-young", "t01-queue"]
    assert lines[0].endswith("asks: which one?")


@pytest.mark.parametrize("width", [1, 5, 20, 40, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    for line in drawn(row(message="漢字" * 40), row(question="?" * 300), width=width):
        assert get_cwidth(line) < max(2, width)


def test_of_many_the_rest_is_counted() -> None:
    lines = drawn(*(row(f"t01-{number:08}") for number in range(MOST + 3)))
    assert len(lines) == MOST + 1
    assert lines[-1].strip() == "… and 3 more"


def test_cut_keeps_whole_letters() -> None:
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert cut("abc", 0) == ""


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain * text_with_marks", "plain * text_with_marks"),
        ("# Title", f"{BOLD}Title{PLAIN}"),
        ("a **bold word** and `code`", f"a {BOLD}bold word{PLAIN} and {CODE}code{PLAIN}"),
        ("- one", "• one"),
        ("2 ** 3 ** 4", "2 ** 3 ** 4"),
        ("\x1b[2J\x07gone", "�[2J�gone"),
    ],
)
def test_markup(raw: str, shown: str) -> None:
    assert Markup().draw(raw) == shown


def test_a_block_of_code_is_left_as_it_is() -> None:
    markup = Markup()
    lines = [markup.draw(line) for line in ("```python", "# **no title**", "```", "**bold**")]
    assert lines == [
        f"{DIM}```python{PLAIN}",
        f"{CODE}# **no title**{PLAIN}",
        f"{DIM}```{PLAIN}",
        f"{BOLD}bold{PLAIN}",
    ]


def test_a_task_is_found_by_the_beginning_of_its_id() -> None:
    ids = ["t07-abc", "t07-abd", "t07-xyz"]
    assert only("t07-x", ids) == "t07-xyz"
    assert only("xy", ids) == "t07-xyz"
    assert only("q", ids) is None
    with pytest.raises(UnknownTask, match="2 tasks begin with ab: t07-abc, t07-abd; say"):
        only("ab", ids)


@pytest.mark.parametrize(
    ("text", "width", "line", "rest"),
    [
        ("one two three", 9, "one two", "three"),
        ("one two", 4, "one", "two"),
        ("abcdefgh", 4, "abc", "defgh"),
        (" abcdefgh", 4, " ab", "cdefgh"),
        ("漢字漢字", 5, "漢字", "漢字"),
        ("漢", 1, "漢", ""),
    ],
)
def test_a_line_breaks_where_it_may(text: str, width: int, line: str, rest: str) -> None:
    assert broken(text, width) == (line, rest)
