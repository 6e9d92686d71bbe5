"""What `up` shows: who said what, and of a worker's log only what a person must know."""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import click

from hermes_async.cli.words import harmless

_COLOURS: Final = ("cyan", "magenta", "blue", "green", "yellow")
#: A line of Celery's log: its level, and what it says.
_RECORD: Final = re.compile(r"^\[[^\]]*: (?P<level>[A-Z]+)/[^\]]*\] (?P<text>.*)")
_SHOWN: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
#: Lines kept of what a child said before it was ready: shown if it never is.
_HELD: Final = 40


class Record(NamedTuple):
    """A line of a log."""

    level: str
    text: str


def record_of(line: str) -> Record | None:
    """Return what a line of a log says, be it text or JSON; None: it is none."""
    if found := _RECORD.match(line):
        return Record(found["level"], found["text"])
    if line.startswith("{"):
        with suppress(ValueError, TypeError, KeyError):
            said = json.loads(line)
            return Record(str(said["level"]), str(said["message"]))
    return None


def is_worker_ready(line: str) -> bool:
    """Tell whether Celery says that it takes tasks."""
    record = record_of(line)
    return record is not None and record.text.endswith(" ready.")


def begins(prefix: str) -> Callable[[str], bool]:
    """Return what tells whether a child says something that begins so, in whichever format."""
    return lambda line: said(line).startswith(prefix)


def said(line: str) -> str:
    """Return a line without what a log adds to it."""
    record = record_of(line)
    return record.text if record else line


class Console:
    """Prints the lines of the children behind their names."""

    def __init__(self, names: list[str], *, verbose: bool) -> None:
        self._names = ["redis", *names]
        self._width = max(map(len, self._names))
        self._verbose = verbose
        self._held: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_HELD))
        self._ready: dict[str, str] = {}
        self._showing: set[str] = set()  # children whose last record was shown; its other lines are too

    def line(self, child: str, text: str) -> None:
        """Show a line, or keep it for the case that the child does not get ready."""
        record = record_of(text)
        if not text.strip():
            return
        if record is not None:
            self._showing.discard(child)
            if record.level in _SHOWN:
                self._showing.add(child)
        if self._verbose or child in self._showing:
            self._print(child, record.text if record and not self._verbose else text)
        elif child not in self._ready:
            self._held[child].append(text)

    def ready(self, child: str, text: str) -> None:
        """Forget what was kept; say so of one that was ready before."""
        self._held.pop(child, None)
        if child in self._ready:
            self.notice(child, "is ready again")
        self._ready[child] = text

    def ready_line(self, child: str) -> str:
        """Return with which line a child said that it is ready."""
        return said(self._ready.get(child, ""))

    def notice(self, child: str, text: str) -> None:
        """Say what became of a child, after what it said itself."""
        for held in self._held.pop(child, ()):
            self._print(child, held)
        self._print(child, text, bold=True)

    def say(self, text: str) -> None:
        """Say something of our own."""
        with suppress(OSError):  # the terminal may be gone; what runs here is to be stopped all the same
            click.echo(text)

    def _print(self, child: str, text: str, *, bold: bool = False) -> None:
        colour = _COLOURS[self._names.index(child) % len(_COLOURS)] if child in self._names else None
        prefix = click.style(f"{child:<{self._width}} |", fg=colour)
        self.say(f"{prefix} {click.style(harmless(text), bold=bold)}")
