"""The only birth of a task: bind the input, write the record, hand it to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import Any, TypeVar

from pydantic import JsonValue

from hermes_async.core.aside import Aside, Waiting
from hermes_async.core.feed import End, Feed
from hermes_async.core.handle import TaskHandle
from hermes_async.core.ids import checked_idempotency_key, new_task_id
from hermes_async.core.journal import Journal, patiently
from hermes_async.core.page import Page
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import Subagent
from hermes_async.domain.agent import RunLimits, SubagentSpec
from hermes_async.domain.budget import Budget
from hermes_async.domain.errors import InvalidInput, TaskRejected, UnknownTask
from hermes_async.domain.refusals import NOT_RUNNING, parent_has_ended, too_deep
from hermes_async.domain.task import Address, Birth, Task
from hermes_async.domain.trusted import trusted

T = TypeVar("T")

NO_LIMITS = RunLimits()

#: Tasks of a batch that are written together.
CHUNK = 100


@dataclass(frozen=True)
class Origin:
    """On whose behalf a task is dispatched."""

    session_id: str
    parent: str | None = None
    parent_task_id: str | None = None
    parent_attempt: int = 0
    root_task_id: str | None = None
    trace_id: str | None = None
    depth: int = 0
    budgets: tuple[Budget, ...] = ()

    @classmethod
    def of(cls, task: Task) -> Origin:
        """Return the origin of a task's children."""
        return cls(
            session_id=task.session_id,
            parent=task.agent,
            parent_task_id=task.id,
            parent_attempt=task.attempt,
            root_task_id=task.birth.root_task_id or task.id,
            trace_id=task.birth.trace_id,
            depth=task.birth.depth + 1,
            budgets=task.birth.budgets,
        )


class Dispatcher:
    """Turns calls into tasks with handles."""

    def __init__(self, registry: Registry, journal: Journal, feed: Feed) -> None:
        self._registry = registry
        self._journal = journal
        self._feed = feed

    def of(self, origin: Origin, aside: Aside | None = None) -> Delegate:
        """Return what dispatches on behalf of a session, or of a running task that can step aside."""
        return Delegate(self, origin, aside)

    def resolve(self, subagent: Subagent[..., Any] | str, parent: str | None) -> Subagent[..., Any]:
        """Return the subagent that `parent` means.

        Raises:
            UnknownAgent: it has no such subagent.
            ConfigError: it needs what is not there.
            UserError: it is neither a subagent nor a name.
        """
        found = self._registry.resolve(subagent, parent)
        if found.needs is not None:
            found.needs.admit(found.spec)
        return found

    def subagents(self, parent: str | None) -> list[Subagent[..., Any]]:
        """Return every subagent that `parent` may name."""
        return self._registry.subagents(parent)

    def new_task(
        self, origin: Origin, subagent: Subagent[..., Any], arguments: Mapping[str, JsonValue]
    ) -> Task:
        """Return a task that is not written yet.

        Raises:
            TaskRejected: it would be one level too deep.
        """
        birth = trusted(Birth, self._birth(origin, subagent, dict(arguments)))
        task = trusted(Task, {"birth": birth, "agent": _agent(subagent)})
        limit = self._registry.config.limits.max_depth
        if origin.depth >= limit:
            raise too_deep(task, limit)
        return task

    async def write(self, task: Task, idempotency_key: str | None = None) -> Task:
        """Write a task; only then does anybody else know of it."""
        with self._journal.tracing.sending((task,)):
            return await self._journal.create(task, idempotency_key)

    async def write_all(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Write many tasks at once."""
        with self._journal.tracing.sending(tasks):
            return await self._journal.create_all(tasks)

    async def standing(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        """Return the ids of those that were accepted."""
        births = await asyncio.gather(*(self._journal.store.born(task.id) for task in tasks))
        return tuple(task.id for task, birth in zip(tasks, births, strict=True) if birth)

    async def last_seq(self, session_id: str) -> int:
        """Return how far the log of a session has come."""
        return await self._journal.store.last_seq(session_id)

    def pages(self, session_id: str, after: int) -> AsyncGenerator[Page, None]:
        """Yield a session's log after `seq`, then what is added, for ever; an empty page: all is read."""
        return self._feed.pages(session_id, after)

    def expect(self, task: Task) -> End | None:
        """Await the end of a task that is not written yet, if anybody listens."""
        return self._feed.expect(task.session_id, task.id)

    def handle(
        self,
        task: Task,
        subagent: Subagent[..., Any],
        aside: Aside | None,
        end: End | None,
        *,
        repeated: bool = False,
    ) -> TaskHandle[Any]:
        """Return the handle of a task that is written."""
        result = subagent.signature.result
        return TaskHandle(task, self._journal, self._feed, result, aside, repeated, end)

    def _birth(
        self, origin: Origin, subagent: Subagent[..., Any], arguments: dict[str, JsonValue]
    ) -> dict[str, Any]:
        """Return the fields of a birth; each was checked where it came from, and none is a secret."""
        fallback = subagent.spec.fallback
        options = self._options(subagent)
        task_id = new_task_id(origin.session_id)
        trace = self._journal.tracing.context(task_id, origin.trace_id)
        return {
            "id": task_id,
            "session_id": origin.session_id,
            "parent": origin.parent,
            "subagent": subagent.spec.id,
            "input": arguments,
            "options": options,
            "to": self._address(subagent),
            "fallback": self._address(self._registry.agent(fallback)) if fallback else None,
            "traceparent": trace.traceparent,
            "tracestate": trace.tracestate,
            "parent_task_id": origin.parent_task_id,
            "parent_attempt": origin.parent_attempt,
            "root_task_id": origin.root_task_id,
            "depth": origin.depth,
            "budgets": origin.budgets + _own_budget(task_id, options.limits),
            "ordered": self._is_ordered(origin.parent),
        }

    def _options(self, subagent: Subagent[..., Any]) -> SubagentSpec:
        """Return the options of a task: where the subagent has no limit, that of the agent holds."""
        options = subagent.spec.recorded()
        declared = self._registry.config.agents.get(_agent(subagent))
        if declared is None or not declared.limits.model_fields_set:
            return options
        return options.model_copy(update={"limits": options.limits.over(declared.limits)})

    def _is_ordered(self, parent: str | None) -> bool:
        declared = self._registry.config.agents.get(parent) if parent else None
        return declared is None or declared.session.lock == "ordered"

    def _address(self, subagent: Subagent[..., Any]) -> Address:
        declared = self._registry.config.agents.get(_agent(subagent))
        limit = declared.concurrency_limit if declared else None
        return trusted(Address, {"lane": subagent.lane, "concurrency_limit": limit})


@dataclass(frozen=True)
class Delegate:
    """Dispatches for one session or one running task."""

    _dispatcher: Dispatcher
    origin: Origin
    _aside: Aside | None = None

    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start a task; the arguments are those of the agent's function."""
        found = self._dispatcher.resolve(subagent, self.origin.parent)
        return await self.submit(found, found.signature.bind(args, kwargs))

    async def dispatch_many(
        self, subagent: Any, inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[Any]]:
        """Start a task for each input, in few round trips."""
        found = self._dispatcher.resolve(subagent, self.origin.parent)
        if not isinstance(inputs, Iterable):
            raise InvalidInput(f"dispatch_many takes a list of inputs, not {inputs!r:.60}")
        # All are bound first: an input that does not fit starts none.
        bound = [found.signature.bind((), each) for each in inputs]
        writing, ends, made = [], [], list[Task]()
        for start in range(0, len(bound), CHUNK):
            tasks = [self._new_task(found, each) for each in bound[start : start + CHUNK]]
            ends += [self._dispatcher.expect(task) for task in tasks]
            made += tasks
            writing.append(asyncio.ensure_future(self._written(partial(self._dispatcher.write_all, tasks))))
            for _ in range(2):  # the store begins to write these while the next ones are made
                await asyncio.sleep(0)
        try:
            written = chain.from_iterable(await asyncio.gather(*writing))
        except TaskRejected as refused:
            await asyncio.wait(writing)
            if self._aside is None:
                refused.accepted = await self._dispatcher.standing(made)
            else:
                await self._withdraw(found, made)
            raise
        return [
            self._dispatcher.handle(task, found, self._aside, end)
            for task, end in zip(written, ends, strict=True)
        ]

    async def _withdraw(self, subagent: Subagent[..., Any], tasks: Sequence[Task]) -> None:
        """Stop those of a refused batch that stand: a task must not end before children it does not know."""

        async def gone(task: Task) -> None:
            handle = self._dispatcher.handle(task, subagent, self._aside, None)
            with suppress(UnknownTask):  # it was refused
                await patiently(handle.cancel, f"the end of {task.id}, which nobody waits for")
                await handle.ended()

        await asyncio.gather(*map(gone, tasks))

    async def submit(
        self,
        subagent: Subagent[..., Any],
        arguments: Mapping[str, JsonValue],
        *,
        idempotency_key: str | None = None,
    ) -> TaskHandle[Any]:
        """Write the task and return its handle; only then does anybody else know of it.

        Args:
            subagent: what is to be run, with its options.
            arguments: the bound input, as JSON values.
            idempotency_key: the same key in the same session, or the circle that agents.yaml names, gives the
                same task.

        Raises:
            StoreUnavailable: nothing was accepted.
            TaskRejected: a limit says no, or the parent task has ended.
            IdempotencyConflict: the key was used with another input.
            InvalidInput: the key is unfit.
        """
        if idempotency_key is not None:
            checked_idempotency_key(idempotency_key)
        task = self._new_task(subagent, arguments)
        end = self._dispatcher.expect(task)
        written = await self._written(partial(self._dispatcher.write, task, idempotency_key))
        if written.id != task.id:  # an earlier one stands
            return self._dispatcher.handle(written, subagent, self._aside, None, repeated=True)
        return self._dispatcher.handle(written, subagent, self._aside, end)

    async def start(
        self,
        subagent: str,
        input: str | Mapping[str, JsonValue],
        *,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> TaskHandle[Any]:
        """Start a task from data: its arguments by name, or a text that means them."""
        found = self.resolve(subagent)
        if priority is not None:
            found = found.options(priority=priority)
        signature = found.signature
        bound = signature.bind_text(input) if isinstance(input, str) else signature.bind_json(input)
        return await self.submit(found, bound, idempotency_key=idempotency_key)

    def _new_task(self, subagent: Subagent[..., Any], arguments: Mapping[str, JsonValue]) -> Task:
        """Return a task that is not written yet; an attempt that is being settled has no more children."""
        task = self._dispatcher.new_task(self.origin, subagent, arguments)
        if self._aside is not None and self._aside.is_over:
            raise parent_has_ended(task, NOT_RUNNING)
        return task

    async def _written(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write; in a chat, a store that is away is an error, but a running task waits for it."""
        return await write() if self._aside is None else await patiently(write, "a dispatch")

    def resolve(self, subagent: str) -> Subagent[..., Any]:
        """Return the subagent of that name."""
        return self._dispatcher.resolve(subagent, self.origin.parent)

    def subagents(self) -> list[Subagent[..., Any]]:
        """Return all that can be named."""
        return self._dispatcher.subagents(self.origin.parent)

    def own(self, idempotency_key: str) -> str:
        """Return a key that means something only within the attempt on whose behalf it is dispatched."""
        whole = f"{self.origin.parent_task_id}:{self.origin.parent_attempt}:{idempotency_key}"
        return blake2b(whole.encode(), digest_size=16).hexdigest()

    async def last_seq(self) -> int:
        """Return how far the session's log has come."""
        return await self._dispatcher.last_seq(self.origin.session_id)

    async def pages(self, after: int) -> AsyncGenerator[Page, None]:
        """Yield the session's log after `seq`, then what is added, for ever; it steps aside to wait."""
        waits: Waiting = nullcontext
        async with aclosing(self._dispatcher.pages(self.origin.session_id, after)) as pages:
            while True:
                async with waits():
                    page = await anext(pages)
                waits = nullcontext if page.events else self._aside or nullcontext
                yield page


def _own_budget(task_id: str, limits: RunLimits) -> tuple[Budget, ...]:
    if not limits.model_fields_set or limits == NO_LIMITS:
        return ()
    return (Budget(task_id=task_id, limits=limits),)


def _agent(subagent: Subagent[..., Any]) -> str:
    return subagent.spec.agent or subagent.name
