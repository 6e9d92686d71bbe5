"""`hermes-async task trace`: what happened in a task, as a waterfall."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import click

from hermes_async.adapters.trace_files import TraceFiles
from hermes_async.cli import exits, waterfall
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Command
from hermes_async.cli.shell import Shell
from hermes_async.cli.tasks import find_task, task_id_argument
from hermes_async.core.hermes import Hermes
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.spans import stretches
from hermes_async.domain.task import Task
from hermes_async.domain.timeline import Stretch, timeline

#: Events that are read at a time.
_PAGE: Final = 500


@click.command(
    cls=Command, epilog=exits.FATE_HELP, example=("task trace t07-4k9", "task trace t07-4k9 --log")
)
@task_id_argument
@click.option(
    "--log", "from_log", is_flag=True, help="Draw what the session's log says, even if there are spans."
)
@click.pass_obj
def trace(shell: Shell, task_id: str, from_log: bool) -> int:
    """Show what happened in a task as a waterfall: its waits, attempts, questions and child tasks.

    If `up --trace` has kept the spans of its trace, those are shown: model and tool calls, too.
    """
    settings = settings_of(shell)
    record, events = with_hermes(settings, _read, task_id)
    spans = [] if from_log else TraceFiles(settings.traces_dir).read(record.birth.trace_id)
    rows = stretches(spans, task_id) if spans else timeline(record, events)
    show(shell, record, rows, "spans" if spans else "log")
    return exits.fate(record.status)


def show(shell: Shell, record: Task, rows: Sequence[Stretch], source: str) -> None:
    """Show a waterfall in the way that fits the output."""
    now = time.time()
    if shell.json:
        said = {"task_id": record.id, "trace_id": record.birth.trace_id, "status": record.status.value}
        shell.answer({**said, "source": source, "rows": waterfall.as_json(rows)})
        return
    lines = waterfall.drawn(rows, now) if shell.on_terminal else waterfall.plain(rows, now)
    click.echo("\n".join(lines))


async def _read(hermes: Hermes, task_id: str) -> tuple[Task, list[AnyEvent]]:
    record = await find_task(hermes, task_id)
    events: list[AnyEvent] = []
    after = 0
    while page := (await hermes.store.events(record.session_id, after, _PAGE)).events:
        events += page
        after = page[-1].seq
    return record, events
