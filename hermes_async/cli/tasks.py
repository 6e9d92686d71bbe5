"""`hermes-async task`: create, watch, list and cancel tasks; what is said to them is in `dialogue.py`."""

from __future__ import annotations

from typing import Any

import click

from hermes_async.cli import exits
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.following import so_far
from hermes_async.cli.group import Group, Later
from hermes_async.cli.hints import hint_after_create, hint_if_nobody_works
from hermes_async.cli.ids import whole_id
from hermes_async.cli.orders import Order, await_order, read_input, tell_task
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_pairs, show_rows
from hermes_async.cli.views import view_for
from hermes_async.cli.words import ago, budget, ending, progress, question, usage
from hermes_async.core.handle import TaskHandle, find, named
from hermes_async.core.hermes import Hermes
from hermes_async.domain.task import Task, TaskStatus

#: Tasks whose worker is gone among which one is looked for.
MOST_LEFT = 10_000

task_id_argument = click.argument("task_id", metavar="ID")
after_option = click.option(
    "--after", type=click.IntRange(min=0), default=0, help="Only events beyond this seq."
)


#: Imported when it is used: the relay's client takes as long to import as all the rest.
LATER: dict[str, Later] = {
    "answer": ("hermes_async.cli.dialogue:answer", "Answer what a task asks; the first answer counts."),
    "send": ("hermes_async.cli.dialogue:send", "Say something to a task."),
    "trace": ("hermes_async.cli.trace:trace", "Show what happened in a task, as a waterfall."),
    "watch": ("hermes_async.cli.watch:watch", "Show a task's events; --follow goes on until its end."),
}


@click.group(cls=Group, later=LATER)
def task() -> None:
    """Create, watch, list and cancel tasks.

    ID is the id of a task, or a beginning of it that no other of the newest 1,000 tasks has.
    """


@task.command(
    epilog=exits.FATE_HELP, example='task create parent_agent research --input "AI chips in 2025" --async'
)
@click.argument("parent")
@click.argument("subagent")
@click.option("--input", "input_", callback=read_input, metavar="TEXT|@FILE|-", help="The agent's input.")
@click.option("--async", "at_once", is_flag=True, help="Do not wait, whatever agents.yaml says.")
@click.option("--session", help="The parent's session; a new one by default.")
@click.option("--priority", type=click.IntRange(0, 9), help="9 is first.")
@click.option("--idempotency-key", metavar="KEY", help="The same key in a session is the same task.")
@click.pass_obj
def create(shell: Shell, /, parent: str, subagent: str, input_: Any, at_once: bool, **how: Any) -> int:
    """Start a task of SUBAGENT on behalf of PARENT (`-`: of no parent).

    Prints the task's id at once if the subagent is `async` in agents.yaml, else waits for the result. The
    input is the agent's first argument, or a JSON object of its arguments.
    """
    order = Order(None if parent == "-" else parent, subagent, input_, **how)
    return with_hermes(settings_of(shell), _create, shell, order, at_once)


async def _create(hermes: Hermes, shell: Shell, order: Order, at_once: bool) -> int:
    if not at_once and not order.is_async(hermes):
        return await await_order(hermes, shell, order)
    handle = await order.place(hermes)
    if shell.json:
        shell.answer(_receipt(handle, await handle.task()))
    else:
        click.echo(handle.id)
        hint_after_create(shell, handle.id)
        await hint_if_nobody_works(shell, hermes, handle)
    return exits.OK


def _receipt(handle: TaskHandle[Any], record: Task) -> dict[str, str]:
    return {
        "task_id": handle.id,
        "session_id": handle.session_id,
        "trace_id": handle.trace_id,
        "status": record.status.value,
    }


async def find_task(hermes: Hermes, said: str) -> Task:
    """Return the record of the task that an id, or the beginning of one, means."""
    return await find(hermes.journal, await whole_id(hermes, said))


@task.command(epilog=exits.FATE_HELP, example="task events t07-4k9 --after 12 --json")
@task_id_argument
@after_option
@click.pass_obj
def events(shell: Shell, task_id: str, after: int) -> int:
    """Show the events that a task has had so far."""
    return with_hermes(settings_of(shell), tell_so_far, shell, task_id, after)


async def tell_so_far(hermes: Hermes, shell: Shell, task_id: str, after: int) -> int:
    record = await find_task(hermes, task_id)
    await so_far(hermes, record, after, view_for(shell, still=True))
    shell.tell(ending(record))
    return exits.fate(record.status)


@task.command(epilog=exits.FATE_HELP, example="task status t07-4k9 --json")
@task_id_argument
@click.pass_obj
def status(shell: Shell, task_id: str) -> int:
    """Show where a task stands."""
    record, is_left = with_hermes(settings_of(shell), _standing, task_id)
    if shell.json:
        shell.answer(record.as_json())
    else:
        show_pairs(shell, _facts(record, is_left))
    return exits.fate(record.status)


async def _standing(hermes: Hermes, said: str) -> tuple[Task, bool]:
    """Return a task's record, and whether the worker that ran it is silent for too long."""
    record = await find_task(hermes, said)
    is_running = record.status is TaskStatus.RUNNING
    return record, is_running and record.id in await hermes.store.lapsed(MOST_LEFT)


def _facts(record: Task, is_left: bool) -> list[tuple[str, str]]:
    cancelling = record.cancel_requested and not record.status.is_terminal
    left = " (its worker is gone; the next one takes over)" if is_left else ""
    error = f"{record.error.type}: {record.error.message}" if record.error else ""
    return [
        ("task", record.id),
        ("status", f"{record.status}{' (asked to stop)' if cancelling else ''}{left}"),
        ("question", question(record.question, record.id)),
        ("reason", record.reason or ""),
        ("error", error),
        ("", record.error.traceback if record.error else ""),
        ("agent", record.agent),
        ("parent", record.birth.parent or ""),
        ("session", record.session_id),
        ("attempt", str(record.attempt or "")),
        ("progress", progress(record.progress)),
        ("usage", usage(record.usage)),
        ("budget", budget(record)),
        ("created", ago(record.created_at)),
        ("started", ago(record.started_at) if record.started_at else ""),
        ("finished", ago(record.finished_at) if record.finished_at else ""),
        ("worker", record.worker or ""),
        ("trace", record.birth.trace_id),
    ]


@task.command(
    epilog="Exit code: 0 completed, 1 failed, 3 cancelled, 4 rejected, 75 not ended yet.",
    example="task result t07-4k9 > report.txt",
)
@task_id_argument
@click.pass_obj
def result(shell: Shell, task_id: str) -> int:
    """Print the result of a task that has ended."""
    return with_hermes(settings_of(shell), tell_result, shell, task_id)


async def tell_result(hermes: Hermes, shell: Shell, task_id: str, _: int = 0) -> int:
    record = await find_task(hermes, task_id)
    if not record.status.is_terminal:
        raise Unfinished(ending(record))
    return tell_task(shell, record)


class Unfinished(click.ClickException):
    """There is no result yet."""

    exit_code = exits.UNFINISHED


@task.command("list", example="task list --status running --limit 10")
@click.option("--session", help="Only those of this session.")
@click.option(
    "--status",
    type=click.Choice([status.value for status in TaskStatus]),
    help="Only those that stand there.",
)
@click.option("--agent", help="Only those of this agent.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.pass_obj
def list_(shell: Shell, session: str | None, status: str | None, agent: str | None, limit: int) -> None:
    """List tasks, newest first."""
    wanted = TaskStatus(status) if status else None
    found = with_hermes(settings_of(shell), _list, session, wanted, agent, limit + 1)
    if shell.json:
        shell.answer([record.as_json() for record in found[:limit]])
    elif found or not shell.on_terminal:
        show_rows(shell, _COLUMNS, map(_row, found[:limit]))
    else:
        click.echo("no such tasks")
    if len(found) > limit:
        shell.tell(f"these are the newest {limit}; --limit shows more")


async def _list(
    hermes: Hermes, session: str | None, status: TaskStatus | None, agent: str | None, limit: int
) -> list[Task]:
    return list(await hermes.tasks(session_id=session, status=status, agent=agent, limit=limit))


_COLUMNS = ("task", "status", "agent", "session", "created", "progress")


def _row(record: Task) -> tuple[str, ...]:
    state = "" if record.status.is_terminal else progress(record.progress)
    return record.id, record.status, record.agent, record.session_id, ago(record.created_at), state


@task.command(example="task cancel t07-4k9 --force")
@task_id_argument
@click.option(
    "--force",
    is_flag=True,
    help="Kill what runs it without a clean-up, if need be its worker: the other tasks there begin again.",
)
@click.option("--no-cascade", is_flag=True, help="Leave the tasks alone that this one has dispatched.")
@click.pass_obj
def cancel(shell: Shell, task_id: str, force: bool, no_cascade: bool) -> None:
    """Ask for a task, and the tasks that it has dispatched, to be stopped."""
    asked, record = with_hermes(settings_of(shell), _cancel, task_id, force, not no_cascade)
    if shell.json:
        shell.answer({"task_id": record.id, "asked": asked, "status": record.status.value})
    elif not asked:
        click.echo(f"task {record.id} had ended already: {record.status}")
    elif record.status.is_terminal:
        click.echo(f"task {record.id} is {record.status}")
    else:
        click.echo(f"asked task {record.id} to stop{' by force' if force else ''}")


async def _cancel(hermes: Hermes, said: str, force: bool, cascade: bool) -> tuple[bool, Task]:
    handle = await hermes.handle(await whole_id(hermes, said))
    asked = await handle.cancel(force=force, cascade=cascade)
    return asked, await named(hermes.journal, handle.id)
