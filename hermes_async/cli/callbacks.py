"""`hermes-async callbacks`: what is to be called, what was given up, and another chance for it."""

from __future__ import annotations

from typing import Any

import click

from hermes_async.cli import exits
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Group
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_rows
from hermes_async.cli.words import ago
from hermes_async.core.hermes import Hermes
from hermes_async.domain.callback import Callback, public_name

#: Rows that `--all-dead` reads at once.
MANY = 500
_COLUMNS = ("callback", "state", "function", "session", "tries", "error")


@click.group(cls=Group)
def callbacks() -> None:
    """List callbacks that have not succeeded, call dead ones again, or throw them away."""


@callbacks.command("list", example="callbacks list --dead --json")
@click.option("--dead", is_flag=True, help="Only those that are tried no more.")
@click.option("--session", help="Only those of this session.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.pass_obj
def list_(shell: Shell, dead: bool, session: str | None, limit: int) -> None:
    """List what waits or is dead, oldest first."""
    found = with_hermes(settings_of(shell), _list, session, dead or None, limit)
    if shell.json:
        shell.answer([_as_json(row) for row in found])
    elif found or not shell.on_terminal:
        show_rows(shell, _COLUMNS, map(_row, found))
    else:
        click.echo("no such callbacks")


async def _list(hermes: Hermes, session: str | None, dead: bool | None, limit: int) -> list[Callback]:
    return list(await hermes.store.ledger.callbacks(session_id=session, dead=dead, limit=limit))


def _as_json(row: Callback) -> dict[str, Any]:
    return {**row.model_dump(mode="json"), "name": public_name(row)}


def _row(row: Callback) -> tuple[str, ...]:
    error = row.log[-1].error if row.log else None
    told = f"{error.type}: {error.message}, {ago(row.log[-1].at)}" if error else ""
    state = "dead" if row.dead else "waiting"
    return row.id, state, public_name(row), row.session_id, str(row.failures), told


@callbacks.command(
    epilog="Exit code: 0 it is tried again, 1 there is no such dead callback.",
    example=(
        "callbacks redeliver t05-3exz9p0vxhvxsnkpdb4bhe9w6v:on_complete",
        "callbacks redeliver --all-dead",
    ),
)
@click.argument("callback_id", metavar="[ID]", required=False)
@click.option("--all-dead", is_flag=True, help="All that are dead.")
@click.pass_obj
def redeliver(shell: Shell, callback_id: str | None, all_dead: bool) -> int:
    """Give a dead callback, or all of them, new tries."""
    if (callback_id is None) is not all_dead:
        raise click.UsageError("name one callback, or say --all-dead")
    ids = with_hermes(settings_of(shell), _redeliver, callback_id)
    if shell.json:
        shell.answer({"redelivered": ids})
    elif ids or all_dead:
        click.echo(f"{len(ids)} callback{'s are' if len(ids) != 1 else ' is'} tried again")
    else:
        shell.tell(f"hermes-async: {_unknown(callback_id)}")
    return exits.OK if ids or all_dead else exits.FAILED


async def _redeliver(hermes: Hermes, callback_id: str | None) -> list[str]:
    ledger = hermes.store.ledger
    if callback_id is not None:
        return [callback_id] if await ledger.redeliver(callback_id) else []
    revived: list[str] = []
    while rows := await ledger.callbacks(dead=True, limit=MANY):
        fresh = [row.id for row in rows if row.id not in revived and await ledger.redeliver(row.id)]
        if not fresh:  # the rest has died again meanwhile
            break
        revived += fresh
    return revived


@callbacks.command(
    epilog="Exit code: 0 it is gone, 1 there is no such dead callback.",
    example="callbacks discard t05-3exz9p0vxhvxsnkpdb4bhe9w6v:on_complete",
)
@click.argument("callback_id", metavar="ID")
@click.pass_obj
def discard(shell: Shell, callback_id: str) -> int:
    """Throw a dead callback away."""
    gone = with_hermes(settings_of(shell), _discard, callback_id)
    if shell.json:
        shell.answer({"callback_id": callback_id, "discarded": gone})
    elif gone:
        click.echo(f"callback {callback_id} is gone")
    else:
        shell.tell(f"hermes-async: {_unknown(callback_id)}")
    return exits.OK if gone else exits.FAILED


async def _discard(hermes: Hermes, callback_id: str) -> bool:
    return await hermes.store.ledger.discard(callback_id)


def _unknown(callback_id: str | None) -> str:
    return f"no dead callback {callback_id!r}; see `hermes-async callbacks list --dead`"
