"""Commands that are imported when they are used, take the global options anywhere, and show an example."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from hermes_async.cli import exits
from hermes_async.cli.shell import Shell
from hermes_async.domain.errors import did_you_mean

#: A command that is not imported yet: its place, `module:attribute`, and its line of help.
Later = tuple[str, str]


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """Return the options that every command takes."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _remember, "hidden": hidden}
    path = click.Path(path_type=Path)
    # Eager, so that an error in another option is told in JSON too.
    flag: dict[str, Any] = {"is_flag": True, "is_eager": True, **shared}
    return [
        click.Option(
            ["--config"], type=path, help="Read FILE instead of ./agents.yaml.", metavar="FILE", **shared
        ),
        click.Option(["--json"], help="Answer in JSON.", **flag),
        click.Option(["-v", "--verbose"], help="Say more; show where an error comes from.", **flag),
    ]


def _remember(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if value and option.name:
        setattr(ctx.ensure_object(Shell), option.name, value)


class _Exemplary(click.Command):
    """A command with an example."""

    def __init__(self, *args: Any, example: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = [example] if isinstance(example, str) else example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}hermes-async {line}\n")
        super().format_epilog(ctx, formatter)


class Command(_Exemplary):
    """A command with the global options and an example."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)


class Group(_Exemplary, click.Group):
    """A group whose commands may be imported later."""

    command_class = Command

    def __init__(
        self, *args: Any, later: Mapping[str, Later] | None = None, hide_globals: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=hide_globals)
        self.later = later or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they are of use."""
        return [*self.commands, *self.later]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing it."""
        if cmd_name not in self.later:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.later[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with, or say which one might be meant."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            hint = self._hint(ctx, args[0], known) or f"; there is {', '.join(known)}"
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def _hint(self, ctx: click.Context, name: str, known: Sequence[str]) -> str:
        """Return what may be meant: a command of a group of ours, one with a like name, or the only one."""
        below = [f"`{each} {name}`" for each in known if self._has_below(ctx, each, name)]
        if below:
            return f"; did you mean {', '.join(below)}?"
        only = f"; did you mean `{ctx.info_name} {known[0]} {name}`?" if len(known) == 1 else ""
        return did_you_mean(name, known) or only

    def _has_below(self, ctx: click.Context, group: str, name: str) -> bool:
        command = self.get_command(ctx, group)
        return isinstance(command, click.Group) and name in command.list_commands(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        rows = [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
        rows += [(name, line) for name, (_, line) in self.later.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader who has seen enough is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _end_unread()


def _end_unread() -> NoReturn:
    # What is still buffered would fail again when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise click.exceptions.Exit(exits.UNREAD)
