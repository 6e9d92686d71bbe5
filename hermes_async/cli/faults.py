"""How an error is told: one sentence on stderr, or JSON on stdout, and an exit code; a traceback with -v."""

from __future__ import annotations

import click

from hermes_async.cli import exits
from hermes_async.cli.shell import Shell
from hermes_async.cli.words import as_json, harmless
from hermes_async.domain.errors import HermesError


def report(error: BaseException, shell: Shell) -> int:
    """Tell of an error and return the exit code."""
    error = _only(error)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return exits.INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return exits.USAGE
    if not isinstance(error, click.ClickException):
        shell.trace(error)
    _tell(type(error).__name__, _sentence(error), shell)
    return error.exit_code if isinstance(error, click.ClickException) else exits.code_of(error)


def _only(error: BaseException) -> BaseException:
    """Return what a group of one contains."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _sentence(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        said = error.format_message()
        path = error.ctx.command_path if error.ctx else "hermes-async"
        return f"{said[:1].lower()}{said[1:].rstrip('.')} (see `{path} --help`)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, HermesError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (-v shows where)"


def _tell(kind: str, message: str, shell: Shell) -> None:
    if shell.json:
        click.echo(as_json({"error": {"type": kind, "message": message}}))
    else:
        click.echo(f"hermes-async: {harmless(message)}", err=True)
