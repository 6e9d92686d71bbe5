"""`hermes-async tools`: what models may call, and how it answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

import click

from hermes_async.adapters.tools import Tool, ToolNames, load_tools
from hermes_async.bootstrap import registry
from hermes_async.cli.bridge import run, settings_of
from hermes_async.cli.group import Group
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_rows
from hermes_async.core.context import TaskContext
from hermes_async.core.tool_call import call
from hermes_async.domain.errors import ConfigError, InvalidInput, UserError
from hermes_async.settings import Settings


@click.group(cls=Group)
def tools() -> None:
    """List and try the tools that models may call."""


@tools.command("list", example="tools list --json")
@click.pass_obj
def list_(shell: Shell) -> None:
    """List the tools that are installed, and those that agents.yaml names by their places."""
    settings = settings_of(shell)
    found = list(_entries(settings.tool_names, _named(settings)))
    if shell.json:
        shell.answer(found)
    else:
        rows = ((each["name"], each["takes"], each["problem"] or each["description"]) for each in found)
        show_rows(shell, ("tool", "takes", "description"), rows)


@tools.command("call", example=("tools call web_search 'tea'", 'tools call web_search \'{"query": "tea"}\''))
@click.argument("name")
@click.argument("arguments", default="{}")
@click.pass_obj
def call_(shell: Shell, name: str, arguments: str) -> None:
    """Call a tool as a model would, and print what the model would read.

    ARGUMENTS is a JSON object, or else the first argument.
    """
    settings = settings_of(shell)
    _named(settings)
    tool = load_tools(settings.tool_names, [name])[name]
    if tool.takes_context:
        raise UserError(f"tool {name!r} takes a TaskContext: it can only be called within a task")
    said = run(call, tool, cast(TaskContext, None), _arguments(tool, arguments))
    if shell.json:
        shell.answer({"tool": name, "result": said})
    else:
        click.echo(said)


def _named(settings: Settings) -> Iterable[str]:
    """Return the tools that agents.yaml names; from here on, modules beside it can be imported."""
    specs = registry(settings).config.agents.values()
    return dict.fromkeys(name for spec in specs for name in spec.tools)


def _entries(names: ToolNames, named: Iterable[str]) -> Iterator[dict[str, str]]:
    for name in dict.fromkeys((*names, *named)):
        try:
            tool = load_tools(names, [name])[name]
        except ConfigError as error:
            yield {"name": name, "takes": "", "description": "", "problem": str(error)}
        else:
            description = tool.description.partition("\n")[0]
            takes = ", ".join(tool.schema["properties"])
            yield {"name": name, "takes": takes, "description": description, "problem": ""}


def _arguments(tool: Tool, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    first = next(iter(tool.schema["properties"]), None)
    if first is None:
        raise InvalidInput(f"tool {tool.name!r} takes no arguments")
    return {first: text}
