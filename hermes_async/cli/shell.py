"""What was said on the command line beside the command itself, and the plain ways to answer."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hermes_async.cli.words import as_json


@dataclass
class Shell:
    """The global options of one invocation."""

    config: Path | None = None
    json: bool = False
    verbose: bool = False

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads the output, so that it may be drawn."""
        return not self.json and sys.stdout.isatty()

    def answer(self, value: Any) -> None:
        """Print a JSON value: on one line for programs, indented for people."""
        click.echo(as_json(value, indent=2 if sys.stdout.isatty() else None))

    def tell(self, text: str) -> None:
        """Say something beside the output."""
        if not self.json:
            click.echo(text, err=True)

    def trace(self, error: BaseException) -> None:
        """Show where an error comes from, with -v."""
        if self.verbose:
            traceback.print_exception(error)
