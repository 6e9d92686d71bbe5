"""`hermes-async token`: what a client shows to the relay, and how it is taken back."""

from __future__ import annotations

import click

from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Group
from hermes_async.cli.shell import Shell
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import InvalidInput
from hermes_async.relay.auth import mint, remaining
from hermes_async.relay.secret import relay_secret

#: Seconds; no token lasts longer.
LONGEST = 31_536_000


@click.group(cls=Group, invoke_without_command=True, example="token --session chat-7 --ttl 600")
@click.option("--session", "sessions", multiple=True, help="A session that is allowed; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All sessions: for operators only.")
@click.option("--read-only", is_flag=True, help="To hear only, not to command.")
@click.option("--ttl", type=click.FloatRange(1, LONGEST), default=3600, show_default=True, help="Seconds.")
@click.option("--sub", default="hermes-async token", metavar="NAME", help="For whom it is; shown in logs.")
@click.pass_context
def token(
    ctx: click.Context, sessions: tuple[str, ...], everything: bool, read_only: bool, ttl: float, sub: str
) -> None:
    """Print a token with which a client may hear sessions and command in them."""
    if ctx.invoked_subcommand is not None:
        return
    shell: Shell = ctx.obj
    if bool(sessions) == everything:
        raise click.UsageError("name the sessions with --session, or say --all")
    secret = relay_secret(settings_of(shell))
    made = mint(secret, sub=sub, sessions="*" if everything else sessions, ttl=ttl, read_only=read_only)
    if shell.json:
        told = {"sessions": "*" if everything else list(sessions), "read_only": read_only, "ttl": ttl}
        shell.answer({"token": made, **told})
    else:
        click.echo(made)


@token.command(example="token revoke 5d25db051417f314")
@click.argument("token_or_jti")
@click.pass_obj
def revoke(shell: Shell, token_or_jti: str) -> None:
    """Let a token count no more; relays hang up on who uses it."""
    settings = settings_of(shell)
    jti, ttl = token_or_jti, float(LONGEST)
    if token_or_jti.count(".") == 2:
        jti, ttl = remaining(relay_secret(settings), token_or_jti)
    elif not jti.isprintable() or len(jti) > 100:
        raise InvalidInput("say the token itself, or its `jti`")
    with_hermes(settings, _revoke, jti, ttl)
    if shell.json:
        shell.answer({"revoked": jti})
    else:
        click.echo(f"token {jti} is revoked")


async def _revoke(hermes: Hermes, jti: str, ttl: float) -> None:
    await hermes.store.revoke_token(jti, ttl)
