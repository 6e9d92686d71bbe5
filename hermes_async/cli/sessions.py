"""`hermes-async session`: what waits in a parent's inbox, and what happens in its session."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import click

from hermes_async.cli import exits
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.following import until_ctrl_c
from hermes_async.cli.group import Group
from hermes_async.cli.ids import KNOWN
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_rows
from hermes_async.cli.tasks import after_option
from hermes_async.cli.words import ago, news
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Batch, Session
from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap

#: Entries or events per read.
_PAGE = 500

session_id_argument = click.argument("session_id", metavar="ID")
follow_option = click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")


@click.group(cls=Group)
def session() -> None:
    """List sessions, look into a parent's inbox, watch its session."""


@session.command("list", example="session list --limit 10")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.pass_obj
def list_(shell: Shell, limit: int) -> None:
    """List the sessions of the newest 1,000 tasks with these by status, newest first."""
    found = with_hermes(settings_of(shell), _list, limit)
    if shell.json:
        shell.answer([{"session_id": each.id, "newest": each.newest, "tasks": each.tasks} for each in found])
    elif found or not shell.on_terminal:
        show_rows(shell, ("session", "newest", "tasks"), map(_row, found))
    else:
        click.echo("no sessions with tasks")


@dataclass
class _Listed:
    """A session, when its newest task was created, and how many tasks stand where."""

    id: str
    newest: float
    tasks: Counter[str] = field(default_factory=Counter)


async def _list(hermes: Hermes, limit: int) -> list[_Listed]:
    found: dict[str, _Listed] = {}
    for task in await hermes.tasks(limit=KNOWN):
        listed = found.setdefault(task.session_id, _Listed(task.session_id, task.created_at))
        listed.tasks[task.status.value] += 1
    return list(found.values())[:limit]


def _row(listed: _Listed) -> tuple[str, str, str]:
    tasks = ", ".join(f"{count} {status}" for status, count in listed.tasks.most_common())
    return listed.id, ago(listed.newest), tasks


@session.command(
    example=["session inbox chat-7 --ack", "session inbox chat-7 --follow --coalesce 0.25 --json"]
)
@session_id_argument
@follow_option
@click.option("--ack", is_flag=True, help="Acknowledge what is printed, right after that.")
@click.option("--count", is_flag=True, help="Print how many deliveries wait, and nothing else.")
@click.option(
    "--coalesce",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --follow: wait so long for others; with --json they are one array on one line.",
)
@click.pass_obj
def inbox(
    shell: Shell, session_id: str, follow: bool, ack: bool, count: bool, coalesce: float | None
) -> int | None:
    """Show what a session's parent has not acknowledged yet, oldest first."""
    if coalesce is not None and not follow:
        raise InvalidInput("--coalesce waits for what is to come: use it with --follow")
    if count:
        return with_hermes(settings_of(shell), _count, shell, session_id)
    how = {"follow": follow, "ack": ack, "coalesce": coalesce}
    return with_hermes(settings_of(shell), _inbox, shell, session_id, how)


async def _count(hermes: Hermes, shell: Shell, session_id: str) -> None:
    unread = await hermes.session(session_id).unread()
    if shell.json:
        shell.answer({"session_id": session_id, "unread": unread})
    else:
        click.echo(unread)


async def _inbox(hermes: Hermes, shell: Shell, session_id: str, how: dict[str, Any]) -> int:
    session, coalesce = hermes.session(session_id), how["coalesce"]
    await _hint_if_silent(hermes, shell, session_id)
    batches = session.batches(coalesce or 0.0, _PAGE) if how["follow"] else _waiting(session)
    with until_ctrl_c():
        async for batch in batches:
            _show_batch(shell, batch, together=coalesce is not None)
            if how["ack"]:
                await batch.ack()
        return exits.OK
    return exits.INTERRUPTED


async def _hint_if_silent(hermes: Hermes, shell: Shell, session_id: str) -> None:
    """Say that a session is not known, which is no error: it may begin at any time."""
    if not await hermes.store.last_seq(session_id):
        shell.tell(f"nothing has happened in session {session_id} so far")


async def _waiting(session: Session) -> AsyncIterator[Batch]:
    """Yield what lies in the inbox now."""
    after = 0
    while page := await session.pending(_PAGE, after):
        yield Batch(page, session)
        after = page[-1].event.seq


def _show_batch(shell: Shell, batch: Batch, *, together: bool) -> None:
    if shell.json and together:
        click.echo(f"[{', '.join(each.event.model_dump_json() for each in batch)}]")
        return
    for delivery in batch:
        _show(shell, delivery.event)


@session.command(example="session watch chat-7 --follow --after 12")
@session_id_argument
@follow_option
@after_option
@click.pass_obj
def watch(shell: Shell, session_id: str, follow: bool, after: int) -> int:
    """Show the events of a session so far; --follow goes on."""
    return with_hermes(settings_of(shell), _watch, shell, session_id, follow, after)


async def _watch(hermes: Hermes, shell: Shell, session_id: str, follow: bool, after: int) -> int:
    session = hermes.session(session_id)
    await _hint_if_silent(hermes, shell, session_id)
    end = None if follow else await hermes.store.last_seq(session_id)
    with until_ctrl_c():
        if end is not None and after >= end:
            return exits.OK
        async for item in session.events(after):
            _show(shell, item)
            if item.seq == end:
                return exits.OK
    return exits.INTERRUPTED


def _show(shell: Shell, item: AnyEvent | Gap) -> None:
    if isinstance(item, Gap):
        gone = f"#{item.first}-{item.last} gap these events are no longer kept"
        click.echo(f'{{"gap": [{item.first}, {item.last}]}}' if shell.json else gone)
    elif shell.json:
        click.echo(item.model_dump_json())
    else:
        click.echo(f"#{item.seq} {item.type} {item.task_id or '-'} {news(item)}".rstrip())
