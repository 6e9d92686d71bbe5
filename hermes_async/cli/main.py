"""`hermes-async`: the entry point."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from hermes_async import __version__
from hermes_async.cli.faults import report
from hermes_async.cli.group import Group, Later
from hermes_async.cli.imports import imports_guarded
from hermes_async.cli.shell import Shell

_HERE = "hermes_async.cli"
COMMANDS: dict[str, Later] = {
    "up": (f"{_HERE}.up:up", "Start everything here: Redis, workers and relay; Ctrl-C stops it."),
    "chat": (f"{_HERE}.chat:chat", "Talk with a parent that delegates; starts what is missing."),
    "task": (f"{_HERE}.tasks:task", "Create, watch, list and cancel tasks."),
    "session": (f"{_HERE}.sessions:session", "List sessions, look into a parent's inbox, watch its session."),
    "invoke": (f"{_HERE}.invoke:invoke", "Run a subagent and wait for its result."),
    "agents": (f"{_HERE}.agents:agents", "List and check what agents.yaml declares."),
    "tools": (f"{_HERE}.tools:tools", "List and try the tools that models may call."),
    "callbacks": (f"{_HERE}.callbacks:callbacks", "List callbacks, call dead ones again or drop them."),
    "worker": (f"{_HERE}.serve:worker", "Run one worker of a lane."),
    "relay": (f"{_HERE}.serve:relay", "Run the relay, which streams events to clients."),
    "token": (f"{_HERE}.token:token", "Print a token for a client of the relay, or revoke one."),
    "metrics": (
        f"{_HERE}.metrics:metrics",
        "Show how many tasks there were, how they did, and what waits.",
    ),
    "doctor": (f"{_HERE}.doctor:doctor", "Check this machine and the servers, and say what to mend."),
}


@click.group(cls=Group, later=COMMANDS, hide_globals=False)
@click.version_option(__version__, prog_name="hermes-async", message="%(prog)s %(version)s")
@click.pass_context
def hermes_async(ctx: click.Context) -> None:
    """Delegate to subagents without ever blocking the chat.

    The options below may stand anywhere on the line. `hermes-async COMMAND --help` says more.
    """
    ctx.with_resource(imports_guarded())
    logging.basicConfig(format="hermes-async: %(message)s", level=logging.WARNING)


def run(args: Sequence[str] | None = None) -> int:
    """Obey a command line and return the exit code."""
    said = list(sys.argv[1:] if args is None else args)
    shell = Shell()
    try:
        code = hermes_async.main(said, prog_name="hermes-async", standalone_mode=False, obj=shell)
    except SystemExit:
        raise
    except BaseException as error:
        shell.json = shell.json or "--json" in said  # the line may be too wrong to be parsed
        return report(error, shell)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Obey the command line of this process."""
    code = run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over: an impatient Ctrl-C must not change how
    sys.exit(code)


if __name__ == "__main__":
    main()
