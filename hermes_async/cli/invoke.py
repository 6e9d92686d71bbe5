"""`hermes-async invoke`: run a subagent and wait for its result."""

from __future__ import annotations

from typing import Any

import click

from hermes_async.cli import exits
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Group
from hermes_async.cli.orders import Order, await_order, read_input
from hermes_async.cli.shell import Shell


@click.group(cls=Group)
def invoke() -> None:
    """Run a subagent and wait for its result."""


@invoke.command(epilog=exits.FATE_HELP, example='invoke subagent research_agent --input "AI chips in 2025"')
@click.argument("agent")
@click.option("--input", "input_", callback=read_input, metavar="TEXT|@FILE|-", help="The agent's input.")
@click.option("--parent", help="On whose behalf: AGENT is then what this agent calls it.")
@click.option("--session", help="The parent's session; a new one by default.")
@click.option("--priority", type=click.IntRange(0, 9), help="9 is first.")
@click.pass_obj
def subagent(shell: Shell, /, agent: str, input_: Any, parent: str | None, **how: Any) -> int:
    """Run AGENT, show its progress and print its result; Ctrl-C asks it to stop."""
    return with_hermes(settings_of(shell), await_order, shell, Order(parent, agent, input_, **how))
