"""The one bridge from commands to the async inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import click

from hermes_async.bootstrap import connect, read_settings
from hermes_async.cli.shell import Shell
from hermes_async.domain.errors import ConfigError
from hermes_async.settings import DEFAULT_FILE, Settings, file_above

T = TypeVar("T")


def settings_of(shell: Shell, *, starts: bool = False) -> Settings:
    """Return the settings of this command line, which may have been given in a folder below the project's.

    Args:
        shell: what was said.
        starts: the command would begin a project here, so it is refused there.

    Raises:
        ConfigError: agents.yaml or a variable is wrong.
    """
    settings = read_settings(shell.config)
    if settings.config is None and not settings.modules and (above := file_above()):
        sentence = f"no {DEFAULT_FILE} here; {above} is one: cd there, or say --config {above}"
        if starts:
            raise ConfigError(sentence)
        click.echo(f"hermes-async: {sentence}", err=True)
    return settings


def run(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run a coroutine to its end."""
    return anyio.run(function, *args)


def with_hermes(settings: Settings, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run `function(hermes, *args)` to its end, with a Hermes that is closed afterwards."""
    result: T = run(_opened, settings, function, *args)
    return result


async def _opened(settings: Settings, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    async with connect(settings) as hermes:
        return await function(hermes, *args)
