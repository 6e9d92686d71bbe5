"""What a token opens, by socket and by plain HTTP; what is absent and what is foreign look the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.domain.errors import Forbidden, UnknownTask, UnreadableTask
from hermes_async.domain.task import Task
from hermes_async.relay.auth import Grant


@dataclass(frozen=True)
class Access:
    """The sessions and tasks of whoever shows a token."""

    hermes: Hermes
    grant: Grant

    def to_command(self) -> None:
        """Let pass who may change something.

        Raises:
            Forbidden: the token allows only to hear.
        """
        if self.grant.read_only:
            raise Forbidden("this token allows to hear, not to command; ask for one without --read-only")

    def session(self, session_id: str, parent: str | None = None) -> Session:
        """Return a session of theirs.

        Raises:
            UnknownTask: it is not theirs.
            UnknownAgent: agents.yaml has no such parent.
        """
        if not self.grant.allows(session_id):
            raise UnknownTask
        return self.hermes.session(session_id, parent)

    async def task(self, task_id: str) -> Task:
        """Return the record of a task of theirs.

        Raises:
            UnknownTask: there is none.
            UnreadableTask: this version cannot read it.
        """
        try:
            task = await self.hermes.store.load(task_id)
        except UnreadableTask as exc:
            if not self.grant.allows(exc.known.session_id):
                raise UnknownTask from None
            raise
        if task is None or not self.grant.allows(task.session_id):
            raise UnknownTask
        return task

    async def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return the handle of a task of theirs.

        Raises:
            UnknownTask: there is none.
        """
        handle = await self.hermes.handle(task_id)
        if not self.grant.allows(handle.session_id):
            raise UnknownTask
        return handle
