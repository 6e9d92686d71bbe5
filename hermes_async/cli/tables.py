"""Rows of values: a table on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from rich import box
from rich.console import Console
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

#: Columns that may be cut on a terminal.
_WIDEST = {"session": 16, "run": 40}


def show_rows(shell: Shell, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows; the columns' names are for people only."""
    if not shell.on_terminal:
        for row in rows:
            click.echo("\t".join(line(cell, 2_000) for cell in row))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True, max_width=_WIDEST.get(column))
    table.add_column(columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(line(cell), style=_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


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
