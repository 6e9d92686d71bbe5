"""The one bridge from commands to the async inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from hermes_async.bootstrap import connect, read_settings
from hermes_async.cli.shell import Shell
from hermes_async.settings import Settings

T = TypeVar("T")


def settings_of(shell: Shell) -> Settings:
    """Return the settings of this command line.

    Raises:
        ConfigError: agents.yaml or a variable is wrong.
    """
    return read_settings(shell.config)


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
