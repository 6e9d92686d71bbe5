"""`hermes-async task answer` and `task send`: what a person says to a running task."""

from __future__ import annotations

import json
from typing import Any

import click

from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Command
from hermes_async.cli.ids import whole_id
from hermes_async.cli.orders import read_text
from hermes_async.cli.shell import Shell
from hermes_async.cli.tasks import task_id_argument
from hermes_async.core.hermes import Hermes

ANSWERED = "Exit code: 0 it was taken, 6 it was not: nothing is asked, or somebody was first."
SENT = "Exit code: 0 it was taken, 6 it was not: the task has ended, or has too much to read."


def _json(ctx: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Return what a JSON text says, as a tuple of one: null is a value, too."""
    if text is None:
        return ()
    try:
        return (json.loads(text),)
    except ValueError as error:
        raise click.BadParameter(f"that is not JSON: {error}") from None


@click.command(cls=Command, epilog=ANSWERED, example="task answer t07-4k9 eu")
@task_id_argument
@click.argument("value", required=False, metavar="[VALUE|@FILE|-]")
@click.option("--json-value", callback=_json, metavar="JSON", help="The answer as JSON, instead of VALUE.")
@click.option("--question", metavar="QID", help="Only if this question is open; by default the one that is.")
@click.pass_obj
def answer(shell: Shell, task_id: str, value: str | None, json_value: Any, question: str | None) -> None:
    """Answer what a task asks; the first answer counts.

    VALUE is text. It is read as JSON where the question does not take text: 3, true, {"a": 1}.
    """
    if (value is None) is (json_value == ()):
        raise click.UsageError("give the answer either as VALUE or with --json-value")
    said = json_value or read_text(value or "", "the answer")
    task_id, told = with_hermes(settings_of(shell), _answer, task_id, said, question)
    if shell.json:
        shell.answer({"task_id": task_id, "answered": True, "answer": told})
    else:
        click.echo(f"answered task {task_id}")


async def _answer(
    hermes: Hermes, task_id: str, said: str | tuple[Any], question: str | None
) -> tuple[str, Any]:
    handle = await hermes.handle(await whole_id(hermes, task_id))
    open_one = (await handle.task()).question
    if isinstance(said, str):
        value = open_one.meant(said) if open_one else said
    else:
        (value,) = said
    await handle.answer(value, question)
    return handle.id, value


@click.command(cls=Command, epilog=SENT, example='task send t07-4k9 "leave the last chapter out"')
@task_id_argument
@click.argument("text", metavar="TEXT|@FILE|-")
@click.option("--data", callback=_json, metavar="JSON", help="What a program is to read, beside the text.")
@click.pass_obj
def send(shell: Shell, task_id: str, text: str, data: Any) -> None:
    """Say something to a task, which reads it as soon as its agent looks."""
    task_id, seq = with_hermes(settings_of(shell), _send, task_id, read_text(text, "the message"), *data)
    if shell.json:
        shell.answer({"task_id": task_id, "seq": seq})
    else:
        click.echo(f"sent to task {task_id}")


async def _send(hermes: Hermes, task_id: str, text: str, data: Any = None) -> tuple[str, int]:
    handle = await hermes.handle(await whole_id(hermes, task_id))
    return handle.id, await handle.send(text, data)
