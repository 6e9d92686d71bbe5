"""Rows of values: a table on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hermes_async.cli.shell import Shell
from hermes_async.cli.words import LONGEST, harmless, line

_STYLES = {
    "completed": "green",
    "running": "cyan",
    "input_required": "cyan",
    "failed": "red",
    "rejected": "red",
    "cancelled": "yellow",
    "ok": "green",
    "warning": "yellow",
    "broken": "bold red",
    "dead": "bold red",
}

#: Between two columns; before what stands below another; and the least that is left to the last column.
_GAP, _INDENT, _NARROWEST = 2, 2, 24
#: What says nothing, if a whole column says it.
_SILENT = frozenset({"", "-", "0"})


def show_rows(shell: Shell, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows; the columns' names are for people only.

    Nothing is cut on a terminal either, since ids are to be used: where there is no room, the last column is
    folded, columns that say nothing are left out, and in the end a row takes several lines.
    """
    if not shell.on_terminal:
        for row in rows:
            click.echo("\t".join(line(cell, 2_000) for cell in row))
        return
    console = Console(highlight=False)
    console.print(_table([columns, *([line(cell) for cell in row] for row in rows)], console.width))


def _table(rows: Sequence[Sequence[str]], room: int) -> Table:
    """Return a table of rows, the first of which are the heads."""
    if _needed(rows, len(rows[0])) > room:
        rows = _without_silent(rows)
    beside = next((number for number in range(len(rows[0]), 1, -1) if _needed(rows, number) <= room), 1)
    folded = (len(rows[0]) - 1) % beside
    heads, *others = ([_cell(stack) for stack in _stacked(row, beside)] for row in rows)
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    for number, head in enumerate(heads):
        table.add_column(head, no_wrap=number != folded, overflow="fold")
    for row in others:
        table.add_row(*row)
    return table


def _without_silent(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Return rows without the columns in which nothing is said below the head."""
    says = [not _SILENT.issuperset(column[1:]) for column in zip(*rows, strict=True)]
    return [list(compress(row, says)) for row in rows] if any(says) else rows


def _needed(rows: Sequence[Sequence[str]], beside: int) -> int:
    """Return how wide a table is at least that has so many columns beside each other."""
    folded = (_stacked([*row[:-1], row[-1][:_NARROWEST]], beside) for row in rows)
    widths = (max(map(_width, stacks)) for stacks in zip(*folded, strict=True))
    return sum(widths) + _GAP * (beside - 1)


def _stacked(row: Sequence[str], beside: int) -> list[Sequence[str]]:
    """Return the cells that stand below each other where so many stand beside each other."""
    return [row[first::beside] for first in range(beside)]


def _width(stack: Sequence[str]) -> int:
    return max(cell_len(stack[0]), *(_INDENT + cell_len(cell) for cell in stack[1:]), 0)


def _cell(stack: Sequence[str]) -> RenderableType:
    first, *others = (Text(cell, _STYLES.get(cell, "")) for cell in stack)
    return Group(first, *(Padding(each, (0, 0, 0, _INDENT)) for each in others if each))


def show_pairs(shell: Shell, pairs: Iterable[tuple[str, str]]) -> None:
    """Print names with their values, one per line; empty ones are left out.

    A value without a name is text below what precedes it, line by line.
    """
    said = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in said), default=0)
    longest = LONGEST if shell.on_terminal else 2_000
    for name, value in said:
        for text in [line(value, longest)] if name else harmless(value).splitlines():
            click.echo(f"{name:<{width}}  {text}" if shell.on_terminal else f"{name}\t{text}")
