"""Tables on a terminal: whatever its width, nothing is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hermes_async.cli.callbacks import _COLUMNS as CALLBACKS
from hermes_async.cli.metrics import _COLUMNS as METRICS
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_rows
from hermes_async.cli.tasks import _COLUMNS as TASKS
from tests.support.terminal import Terminal
from tests.unit.cli.conftest import HERMES, Cli

TASK, SESSION = "t04-0r255dk39xqfarpsmw0kp99x1y", "s-75qhrpw81d3dcsycm2zj252wpq"
SAID = "searching what there is about the chips of tomorrow"

Draw = Callable[..., list[str]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Draw:
    """The lines of a table on a terminal of a width."""
    monkeypatch.setattr(Shell, "on_terminal", True)

    def drawn(width: int, columns: Sequence[str], *rows: Sequence[str]) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        show_rows(Shell(), columns, rows)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return drawn


def test_where_there_is_room_a_row_is_a_line(draw: Draw) -> None:
    head, rule, row = draw(160, TASKS, (TASK, "running", "research", SESSION, "12 s ago", f"40% {SAID}"))
    assert head.split() == list(TASKS)
    assert set(rule) == {"─"}
    assert row.split("  ") == [TASK, "running", "research", SESSION, "12 s ago", f"40% {SAID}"]


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (TASKS, (TASK, "input_required", "research_agent", SESSION, "12 s ago", f"40% {SAID}")),
        (CALLBACKS, (f"{TASK}:on_key", "dead", "mine:called", SESSION, "5", f"RuntimeError: {SAID}")),
        (METRICS, ("research", *"123456", "38 ms / 49 ms", "250 ms / 3.4 s", "12,000", "$0.1200")),
    ],
)
def test_where_there_is_little_nothing_is_cut(
    draw: Draw, width: int, columns: Sequence[str], row: Sequence[str]
) -> None:
    lines = draw(width, columns, row)
    assert max(map(len, lines)) <= width
    rule = next(index for index, line in enumerate(lines) if set(line) == {"─"})
    for head in columns:
        assert head in "\n".join(lines[:rule])
    for cell in row[:-1]:
        assert any(cell in line for line in lines[rule + 1 :]), cell
    words = " ".join(lines[rule + 1 :]).split()
    assert all(word in words for word in row[-1].split())


def test_columns_that_say_nothing_go_first(draw: Draw) -> None:
    rows = ("research", "1", "1", "0", "0", "0", "0", "38 ms / 49 ms", "250 ms / 3.4 s", "-", "-")
    head, _, row = draw(80, METRICS, rows)
    assert head.split() == ["agent", "tasks", "completed", "wait", "p50/p95", "attempt", "p50/p95"]
    assert row.split()[:3] == ["research", "1", "1"]
    assert draw(160, METRICS, rows)[0].endswith("cost")


def test_the_last_column_is_folded_before_a_row_takes_two_lines(draw: Draw) -> None:
    lines = draw(80, ("check", "status", "detail"), ("durability", "ok", f"{SAID}: {SAID}"))
    assert lines[0].split() == ["check", "status", "detail"]
    assert [line[:10].strip() for line in lines[2:]] == ["durability", ""]


def test_without_rows_the_heads_stand(draw: Draw) -> None:
    assert draw(160, METRICS)[0].split("  ") == list(METRICS)
    assert draw(80, METRICS)[0].startswith("agent")


@pytest.mark.parametrize("width", [80, 100])
def test_ids_of_a_list_can_be_used(online: Path, cli: Cli, width: int) -> None:
    made = json.loads(cli("task", "create", "parent_agent", "research", "--json").out)
    with Terminal([*HERMES, "task", "list"], online, size=(30, width)) as terminal:
        assert terminal.wait() == 0
    assert made["task_id"] in terminal.text
    assert made["session_id"] in terminal.text
