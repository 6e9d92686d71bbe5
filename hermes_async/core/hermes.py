"""The object that a user holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio.to_thread

from hermes_async.core.arguments import Count, Name, Status, Text, strict
from hermes_async.core.aside import StepOut, stay
from hermes_async.core.dispatch import Dispatcher
from hermes_async.core.feed import Feed
from hermes_async.core.handle import TaskHandle, named
from hermes_async.core.ids import checked_session_id, new_session_id
from hermes_async.core.janitor import Janitor
from hermes_async.core.journal import Journal
from hermes_async.core.listeners import Listeners
from hermes_async.core.ports import Queue, Store, Traffic
from hermes_async.core.registry import Registry
from hermes_async.core.runner import Runner
from hermes_async.core.session import Session
from hermes_async.core.tracing import UNTRACED, Tracing
from hermes_async.domain.task import Task


class Hermes:
    """Sessions, tasks and agents over one store and one queue; `linger` is that of its feed."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        queue: Queue,
        *,
        linger: float = 0.0,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self.registry = registry
        self.store = store
        self.tracing = tracing
        self.journal = Journal(store, queue, tracing)
        self.feed = Feed(store, linger)
        self.listeners = Listeners(self.feed)
        self.janitor = Janitor(self.journal)
        self._dispatcher = Dispatcher(registry, self.journal, self.feed)

    @strict
    def session(self, session_id: str | None = None, parent: Name = None) -> Session:
        """Return a session; one that nobody used before begins with its first task.

        Args:
            session_id: 1 to 200 printable characters; a new random one by default.
            parent: the conversational agent of agents.yaml whose subagents are meant.

        Raises:
            InvalidInput: the id is unfit.
            UnknownAgent: agents.yaml has no such parent.
        """
        if parent is not None:
            self.registry.config.agent(parent)
        chosen = new_session_id() if session_id is None else checked_session_id(session_id)
        return Session(chosen, parent, self._dispatcher, self.journal, self.feed, self.listeners)

    @strict
    async def handle(self, task_id: Text) -> TaskHandle[Any]:
        """Return the handle of a task that any process has dispatched.

        Raises:
            UnknownTask: there is none.
        """
        return TaskHandle(await named(self.journal, task_id), self.journal, self.feed)

    @strict
    async def tasks(
        self,
        *,
        session_id: Name = None,
        status: Status = None,
        agent: Name = None,
        limit: Count = 50,
    ) -> Sequence[Task]:
        """Return tasks that match, newest first."""
        return await self.store.tasks(session_id=session_id, status=status, agent=agent, limit=limit)

    async def traffic(self) -> Traffic:
        """Return how many tasks are running and waiting, and how many can run at once."""
        return await self.store.traffic()

    def runner(self, worker: str, lease: float, step_out: StepOut = stay) -> Runner:
        """Return what runs tasks on behalf of a worker.

        Args:
            worker: its name in leases.
            lease: seconds.
            step_out: gives back the pool's slot while a task waits for others.
        """
        return Runner(
            self.journal, self.registry, self._dispatcher, worker=worker, lease=lease, step_out=step_out
        )

    async def close(self) -> None:
        """Stop listening and give back every connection; whoever waits for an end is told that there is none.

        Raises:
            UserError: it belongs to another event loop or process.
        """
        if not self.store.home.is_closed:
            self.store.home.loop()
        await self.listeners.close()
        await self.registry.close()
        await self.journal.finish()
        self.store.home.is_closed = True
        await self.feed.close()
        await self.journal.close()
        await anyio.to_thread.run_sync(self.tracing.flush)
