"""How the events of one task are shown: drawn on a terminal, as lines in a pipe, as JSON, or not at all."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from hermes_async.cli.shell import Shell
from hermes_async.cli.words import as_json, news, progress, seconds
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.lifecycle import TERMINAL_TYPES

_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "rejected": "bold red",
    "cancelled": "yellow",
    "retrying": "yellow",
    "attempt_lost": "yellow",
    "cancel_requested": "yellow",
    "input_required": "cyan",
    "message": "cyan",
}


class View(AbstractContextManager[Any], Protocol):
    """Shows events as they come."""

    #: Whether it also shows how the task ended.
    tells_end: bool

    def show(self, event: AnyEvent) -> None:
        """Show one event."""
        ...

    def gap(self, first: int, last: int) -> None:
        """Show that events are missing."""
        ...


def view_for(shell: Shell, *, quiet: bool = False, aside: bool = False, still: bool = False) -> View:
    """Return the view that fits the output.

    Args:
        shell: how to answer.
        quiet: show nothing.
        still: there is nothing to wait for, so nothing moves.
        aside: the events are not the output, only company while somebody waits: on a terminal, or nowhere.
    """
    stream = sys.stderr if aside else sys.stdout
    if quiet or (aside and (shell.json or not stream.isatty())):
        return Silence()
    if shell.json:
        return JsonLines()
    return Bars(stream) if stream.isatty() and not still else Lines()


class Silence(nullcontext[None]):
    """Shows nothing."""

    tells_end = False

    def show(self, event: AnyEvent) -> None:
        """Do nothing."""

    def gap(self, first: int, last: int) -> None:
        """Do nothing."""


class JsonLines(nullcontext[None]):
    """One JSON object per line, as it is on every transport."""

    tells_end = True

    def show(self, event: AnyEvent) -> None:
        """Print the event."""
        click.echo(as_json(event.model_dump(mode="json")))

    def gap(self, first: int, last: int) -> None:
        """Print which events are gone."""
        click.echo(f'{{"gap": [{first}, {last}]}}')


class Lines(nullcontext[None]):
    """`#seq type message`."""

    tells_end = True

    def show(self, event: AnyEvent) -> None:
        """Print the event."""
        click.echo(f"#{event.seq} {event.type} {news(event)}".rstrip())

    def gap(self, first: int, last: int) -> None:
        """Print which events are gone."""
        click.echo(f"#{first}-{last} gap these events are no longer kept")


class Bars:
    """A bar that moves with the progress; what else is said stands above it."""

    tells_end = True

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[who]}[/]", markup=True),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=Console(file=stream, highlight=False),
            transient=True,
        )
        self._began = 0.0
        self._bar = self._progress.add_task("", total=None, who="", state="waiting for a worker")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def show(self, event: AnyEvent) -> None:
        """Move the bar, or write above it."""
        self._began = self._began or event.time
        self._progress.update(self._bar, who=event.agent or "")
        if event.type == "task.progress":
            percent = event.data.progress_percent
            total = None if percent is None else 100
            self._progress.update(self._bar, total=total, completed=percent or 0, state=progress(event.data))
        elif event.type == "task.started":
            self._state("running" if event.attempt == 1 else f"running, attempt {event.attempt}")
        elif event.type != "task.queued":
            self._write(event)

    def gap(self, first: int, last: int) -> None:
        """Write which events are gone."""
        self._progress.console.print(f"events {first} to {last} are no longer kept", style="dim")

    def _state(self, text: str) -> None:
        self._progress.update(self._bar, total=None, completed=0, state=text)

    def _write(self, event: AnyEvent) -> None:
        word = event.type.partition(".")[2]
        if event.type == "task.completed":  # the result itself follows below
            text = Text.assemble(("completed", _STYLES[word]), f" after {seconds(event.time - self._began)}")
        else:
            text = Text.assemble((word.replace("_", " "), _STYLES.get(word, "dim")), " ", news(event))
        self._progress.console.print(text, soft_wrap=True)
        if event.type in TERMINAL_TYPES:
            self._progress.update(self._bar, visible=False)
