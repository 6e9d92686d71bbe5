"""The tasks of a session that have not ended, kept up to date by its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hermes_async.cli.words import line
from hermes_async.core.session import Session
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TARGET, TERMINAL_TYPES
from hermes_async.domain.task import Task, TaskStatus

#: Characters of a task's id by which a person tells it from the others of a session.
SHORT = 9
#: Tasks that are looked through when the board is drawn up.
_MANY = 200


@dataclass
class Row:
    """A task as it stands."""

    id: str
    name: str
    status: TaskStatus = TaskStatus.QUEUED
    percent: float | None = None
    message: str = ""
    question: str = ""
    since: float = 0.0


class Board:
    """Rows of the tasks that a parent has dispatched itself; those of its subagents are theirs.

    Args:
        session: whose tasks they are.
        on_change: called whenever a row may have changed.
    """

    def __init__(self, session: Session, on_change: Callable[[AnyEvent | Gap], object]) -> None:
        self.rows: dict[str, Row] = {}
        self._session = session
        self._on_change = on_change
        self._names: dict[str, str] = {}
        self._moved = asyncio.Event()

    async def open(self) -> None:
        """Listen, then read what there is."""
        await self._session.on("*", self._hear)
        await self._read()

    def touch(self) -> None:
        """Wake who waits: something else has changed."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self, at_most: float) -> None:
        """Wait until something has changed, or some seconds have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._moved.wait()

    def name_of(self, event: AnyEvent) -> str:
        """Return what the parent calls the agent of an event."""
        return self._names.get(event.task_id or "", event.agent or "")

    async def _read(self) -> None:
        self.rows.clear()
        for task in reversed(await self._session.tasks(limit=_MANY)):
            self._names[task.id] = task.birth.subagent
            if task.birth.parent_task_id is None and not task.status.is_terminal:
                self.rows[task.id] = _row(task)

    async def _hear(self, item: AnyEvent | Gap) -> None:
        if isinstance(item, Gap):
            await self._read()
        elif item.task_id is not None:
            self._apply(item, item.task_id)
        self._on_change(item)
        self.touch()

    def _apply(self, event: AnyEvent, task_id: str) -> None:
        if event.type == "task.queued":
            self._names[task_id] = event.data.subagent
            if event.data.parent_task_id is None:
                self.rows[task_id] = Row(task_id, event.data.subagent, since=event.time)
        row = self.rows.get(task_id)
        if row is None:
            return
        if event.type in TERMINAL_TYPES:
            del self.rows[task_id]
            return
        row.status = TARGET.get(event.type, row.status)
        if event.type == "task.progress":
            row.percent, row.message = event.data.progress_percent, line(event.data.message, 200)
        row.question = line(event.data.question, 200) if event.type == "task.input_required" else row.question
        if event.type in ("task.resumed", "task.answered"):
            row.question = ""
        if event.type in ("task.retrying", "task.attempt_lost"):
            row.percent, row.message = None, event.type.partition(".")[2].replace("_", " ")


def _row(task: Task) -> Row:
    said = task.progress
    return Row(
        task.id,
        task.birth.subagent,
        task.status,
        said.progress_percent if said else None,
        line(said.message, 200) if said else "",
        line(task.question.question, 200) if task.question else "",
        task.created_at,
    )


def short(task_id: str | None) -> str:
    """Return so much of a task's id that a person can tell it from others."""
    return (task_id or "")[:SHORT]
