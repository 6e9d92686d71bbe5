"""`hermes-async task watch`: a task's events as the relay sends them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click

from hermes_async.cli import exits
from hermes_async.cli.bridge import run, settings_of, with_hermes
from hermes_async.cli.group import Command
from hermes_async.cli.orders import print_output
from hermes_async.cli.relayed import End, over_relay
from hermes_async.cli.shell import Shell
from hermes_async.cli.tasks import after_option, find_task, task_id_argument, tell_result, tell_so_far
from hermes_async.cli.views import View, view_for
from hermes_async.domain.task import TaskStatus
from hermes_async.relay.auth import mint
from hermes_async.relay.secret import relay_secret
from hermes_async.settings import Settings

#: Seconds for which the token of a `watch` is good; each connection makes a new one.
TOKEN_TTL = 600.0


@click.command(cls=Command, epilog=exits.FATE_HELP, example="task watch t07-4k9 --follow")
@task_id_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the task ends, over the relay.")
@after_option
@click.option("--result-only", is_flag=True, help="Print the result and nothing else.")
@click.option(
    "--relay",
    metavar="URL",
    help="The relay; by default HERMES_RELAY_URL, else the one that runs here, else that of agents.yaml.",
)
@click.option("--token", help="By default HERMES_TOKEN, else one made with the project's own secret.")
@click.pass_obj
def watch(
    shell: Shell,
    task_id: str,
    follow: bool,
    after: int,
    result_only: bool,
    relay: str | None,
    token: str | None,
) -> int:
    """Show the events of a task: bars on a terminal, lines in a pipe, JSON lines with --json."""
    settings = settings_of(shell)
    if not follow:
        show = tell_result if result_only else tell_so_far
        return with_hermes(settings, show, shell, task_id, after)
    given = token or settings.token
    if given is None:
        record = with_hermes(settings, find_task, task_id)
        task_id, tokens = record.id, _own_tokens(settings, record.session_id)
    else:  # whoever is given one may not reach the state: only whole ids will do
        tokens = partial(str, given)
    end = _followed(relay or settings.relay_url, tokens, task_id, after, view_for(shell, quiet=result_only))
    return _tell_end(shell, task_id, end, result_only=result_only)


def _followed(url: str, tokens: Callable[[], str], task_id: str, after: int, view: View) -> End:
    end = run(over_relay, url, tokens, task_id, after, view)
    if end is None:  # it lies before `after`
        end = run(over_relay, url, tokens, task_id, 0, view_for(Shell(), quiet=True))
    return end or End(TaskStatus.RUNNING)


def _own_tokens(settings: Settings, session: str) -> Callable[[], str]:
    secret = relay_secret(settings)
    return lambda: mint(secret, sub="hermes-async task watch", sessions=[session], ttl=TOKEN_TTL)


def _tell_end(shell: Shell, task_id: str, end: End, *, result_only: bool) -> int:
    """Print the result that followed the events, where they did not show it; return the task's fate."""
    if end.status is TaskStatus.COMPLETED and (result_only or shell.on_terminal):
        print_output(shell, end.output)
    elif result_only:
        error = f": {end.error.type}: {end.error.message}" if end.error else ""
        shell.tell(f"hermes-async: task {task_id} {end.status}{error}")
    return exits.fate(end.status)
