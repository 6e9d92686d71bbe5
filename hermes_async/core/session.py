"""A parent's chat: it dispatches tasks, hears of them, and keeps its inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from pydantic import JsonValue

from hermes_async.core.arguments import Count, Function, Seconds, Seq, Status, Text, strict
from hermes_async.core.dispatch import Dispatcher, Origin
from hermes_async.core.feed import Feed
from hermes_async.core.handle import TaskHandle, named, unknown
from hermes_async.core.ids import new_traceparent
from hermes_async.core.journal import Journal
from hermes_async.core.listeners import Listeners
from hermes_async.core.signature import as_json
from hermes_async.core.subagent import Subagent
from hermes_async.domain.errors import UnknownTask, UnreadableTask
from hermes_async.domain.events import AnyEvent, MessageData, SessionMessage
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.domain.task import Task

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Delivery:
    """Something the parent must not miss; it comes again until it is acknowledged."""

    event: AnyEvent
    session: Session

    @property
    def id(self) -> str:
        """The same however often it is delivered."""
        return self.event.id

    async def ack(self) -> bool:
        """Take it out of the inbox; return False when it was out already.

        It may be this very call that has taken it out: False, too, is what is returned when the connection
        was lost before the answer.
        """
        return bool(await self.session.ack(self.event.seq))

    async def is_inner(self) -> bool:
        """Tell whether it is the end of a task that another task has delegated, which hears of it itself."""
        if self.event.type not in TERMINAL_TYPES or self.event.task_id is None:
            return False
        try:
            task = await (await self.session.handle(self.event.task_id)).task()
        except (UnknownTask, UnreadableTask):  # forgotten meanwhile, or nobody can tell
            return False
        return task.birth.parent_task_id is not None


@dataclass(frozen=True)
class Batch:
    """Deliveries that one turn of the parent can deal with together, oldest first."""

    deliveries: Sequence[Delivery]
    session: Session

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self.deliveries)

    def __len__(self) -> int:
        return len(self.deliveries)

    async def ack(self) -> int:
        """Take all of them out of the inbox at once; return how many were there."""
        return await self.session.ack(*(each.event.seq for each in self.deliveries))


class Session:
    """One conversation of a parent agent, known by its id in every process."""

    def __init__(
        self,
        session_id: str,
        parent: str | None,
        dispatcher: Dispatcher,
        journal: Journal,
        feed: Feed,
        listeners: Listeners,
    ) -> None:
        self.id = session_id
        self.parent = parent
        self._delegate = dispatcher.of(Origin(session_id=session_id, parent=parent))
        self._journal = journal
        self._feed = feed
        self._listeners = listeners

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    @overload
    async def dispatch(
        self, subagent: Subagent[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...
    @overload
    async def dispatch(self, subagent: str, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]: ...
    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start a task and return its handle at once; the arguments are those of the agent's function.

        Raises:
            UnknownAgent: the parent has no such subagent.
            InvalidInput: the arguments do not fit.
            StoreUnavailable: nothing was accepted.
            TaskRejected: a limit says no; the message says which.
        """
        return await self._delegate.dispatch(subagent, *args, **kwargs)

    @overload
    async def dispatch_many(
        self, subagent: Subagent[..., R], inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[R]]: ...
    @overload
    async def dispatch_many(
        self, subagent: str, inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[Any]]: ...
    async def dispatch_many(
        self, subagent: Any, inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[Any]]:
        """Start a task for each input in a few round trips, and return their handles in the same order.

        Args:
            subagent: what every one of them runs.
            inputs: the arguments of each task, by name.

        Raises:
            InvalidInput: one of the inputs does not fit; nothing was started.
            TaskRejected: a limit refuses one of them; `.accepted` has the ids of those that were accepted.
            StoreUnavailable: some may have been accepted; `tasks` tells, once the store is back.
        """
        return await self._delegate.dispatch_many(subagent, inputs)

    @strict
    async def submit(
        self,
        subagent: Text,
        input: str | Mapping[str, JsonValue],
        *,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> TaskHandle[Any]:
        """Start a task from data instead of a call, as the command line and other programs do.

        Args:
            subagent: its name.
            input: the arguments by name, or a text: a JSON object of arguments, or the first argument.
            priority: from 0 to 9, 9 is first; the subagent's own by default.
            idempotency_key: the same key in the same session, or the circle that agents.yaml names, gives the
                same task.

        Raises:
            IdempotencyConflict: the key was used with another input.
        """
        return await self._delegate.start(subagent, input, priority=priority, idempotency_key=idempotency_key)

    @strict
    async def events(self, after: Seq = 0) -> AsyncIterator[AnyEvent | Gap]:
        """Yield the session's events with a `seq` beyond `after`, past and future, until the end.

        A `Gap` (its `type` is `gap`) takes the place of events that are no longer kept.
        """
        async for item in self._feed.events(self.id, after):
            yield item

    @strict
    async def on(self, types: Text, handler: Function) -> Callable[[], None]:
        """Call a handler with each of the session's events that is logged from now on, in this process only.

        The session's handlers are called one at a time and in order; what one raises is logged. They hear
        nothing while this process is not there: what the parent must not miss is in its inbox.

        Args:
            types: a type of event, or many: `task.completed`, `task.*`, `*`.
            handler: a `def` or an `async def`; the next call waits until it has returned.

        Returns what ends it.

        Raises:
            InvalidInput: there is no such type of event.
        """
        return await self._listeners.add(self.id, types, handler)

    async def inbox(self) -> AsyncIterator[Delivery]:
        """Yield what the parent has not acknowledged yet, then what arrives, until the Hermes is closed.

        What is not acknowledged meanwhile comes again when you begin anew.
        """
        async for events in self._feed.entries(self.id):
            for event in events:
                yield Delivery(event, self)

    @strict
    async def batches(self, coalesce: Seconds = 0.25, limit: Count = 100) -> AsyncIterator[Batch]:
        """Yield the same as `inbox` does, but together what comes within a short time.

        Args:
            coalesce: seconds that the first of a batch waits for others.
            limit: deliveries after which a batch waits no more.

        Raises:
            InvalidInput: `coalesce` is negative, or `limit` less than 1.
        """
        async for events in self._feed.entries(self.id, coalesce, limit):
            yield Batch([Delivery(event, self) for event in events], self)

    @strict
    async def pending(self, limit: Count = 100, after: Seq = 0) -> Sequence[Delivery]:
        """Return what lies in the inbox now, without waiting: what a chat loop drains between turns.

        Args:
            limit: how many at most, oldest first.
            after: only those with a `seq` beyond this, to look through more of them than `limit`.
        """
        return [Delivery(event, self) for event in await self._journal.store.inbox(self.id, after, limit)]

    async def unread(self) -> int:
        """Return how many deliveries wait to be acknowledged."""
        return await self._journal.store.unread(self.id)

    @strict
    async def ack(self, *seqs: Seq) -> int:
        """Take entries out of the inbox by their `seq`; return how many were there.

        Those that this very call has taken out before its connection was lost are not counted.
        """
        return await self._journal.store.ack(self.id, seqs)

    @strict
    async def send_message(self, text: Text, data: JsonValue = None) -> int:
        """Say something in the session; it reaches the parent wherever it listens. Returns its `seq`."""
        said = MessageData(**as_json({"text": text, "data": data}, "the message"))
        event = SessionMessage(
            id=f"{self.id}:{new_traceparent()[3:35]}",
            type="session.message",
            session_id=self.id,
            data=said,
        )
        return await self._journal.store.post(event)

    def subagents(self) -> Sequence[Subagent[..., Any]]:
        """Return those that it may dispatch to, with the options that agents.yaml gives them here.

        Raises:
            ConfigError: one of them cannot be run; the message says why.
        """
        return self._delegate.subagents()

    @strict
    async def handle(self, task_id: Text) -> TaskHandle[Any]:
        """Return the handle of one of the session's tasks, whoever dispatched it.

        Raises:
            UnknownTask: there is none, or it belongs to another session.
        """
        task = await named(self._journal, task_id)
        if task.session_id != self.id:
            raise unknown(task_id)
        return TaskHandle(task, self._journal, self._feed)

    @strict
    async def tasks(self, *, status: Status = None, limit: Count = 50) -> Sequence[Task]:
        """Return the session's tasks, newest first."""
        return await self._journal.store.tasks(session_id=self.id, status=status, limit=limit)
