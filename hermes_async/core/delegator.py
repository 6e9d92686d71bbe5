"""On whose behalf tasks are started from data, and who may look after them: a session, or a running task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import JsonValue

from hermes_async.core.agent import Subagent
from hermes_async.core.handle import TaskHandle
from hermes_async.domain.task import Task, TaskStatus


class Delegator(Protocol):
    """Starts tasks by the names of subagents, and knows its own ones only."""

    def subagents(self) -> Sequence[Subagent[..., Any]]:
        """Return those that may be named."""
        ...

    async def submit(
        self, subagent: str, input: str | Mapping[str, JsonValue], *, idempotency_key: str | None = None
    ) -> TaskHandle[Any]:
        """Start a task from data."""
        ...

    async def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return the handle of one of its tasks, or raise UnknownTask."""
        ...

    async def tasks(self, *, status: TaskStatus | None = None, limit: int = 50) -> Sequence[Task]:
        """Return its tasks, newest first."""
        ...

    async def ack(self, *seqs: int) -> int:
        """Leave out of its news, or its inbox, what it was told in another way."""
        ...
