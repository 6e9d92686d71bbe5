"""`hermes-async token`: what a client shows to the relay."""

from __future__ import annotations

import click

from hermes_async.cli.bridge import settings_of
from hermes_async.cli.group import Command
from hermes_async.cli.shell import Shell
from hermes_async.relay.auth import mint
from hermes_async.relay.secret import relay_secret


@click.command(cls=Command, example="token --session chat-7 --ttl 600")
@click.option("--session", "sessions", multiple=True, help="A session that may be heard; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All sessions: for operators only.")
@click.option("--ttl", type=click.FloatRange(1, 31_536_000), default=3600, show_default=True, help="Seconds.")
@click.option("--sub", default="hermes-async token", metavar="NAME", help="For whom it is; shown in logs.")
@click.pass_obj
def token(shell: Shell, sessions: tuple[str, ...], everything: bool, ttl: float, sub: str) -> None:
    """Print a token with which a client may hear sessions."""
    if bool(sessions) == everything:
        raise click.UsageError("name the sessions with --session, or say --all")
    secret = relay_secret(settings_of(shell))
    made = mint(secret, sub=sub, sessions="*" if everything else sessions, ttl=ttl)
    if shell.json:
        shell.answer({"token": made, "sessions": "*" if everything else list(sessions), "ttl": ttl})
    else:
        click.echo(made)
