"""The only birth of a task: bind the input, write the record, hand it to the broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from hermes_async.core.context import Dispatch
from hermes_async.core.feed import Feed
from hermes_async.core.handle import TaskHandle
from hermes_async.core.ids import checked_idempotency_key, new_task_id, new_traceparent
from hermes_async.core.journal import Journal
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import Subagent
from hermes_async.domain.task import Birth, Task


@dataclass(frozen=True)
class Origin:
    """On whose behalf a task is dispatched."""

    session_id: str
    parent: str | None = None
    parent_task_id: str | None = None
    root_task_id: str | None = None
    traceparent: str | None = None
    depth: int = 0

    @classmethod
    def of(cls, task: Task) -> Origin:
        """Return the origin of a task's children."""
        return cls(
            session_id=task.session_id,
            parent=task.agent,
            parent_task_id=task.id,
            root_task_id=task.birth.root_task_id or task.id,
            traceparent=task.birth.traceparent,
            depth=task.birth.depth + 1,
        )


class Dispatcher:
    """Turns a call into a task with a handle."""

    def __init__(self, registry: Registry, journal: Journal, feed: Feed) -> None:
        self._registry = registry
        self._journal = journal
        self._feed = feed

    def child_of(self, task: Task) -> Dispatch:
        """Return the function with which a running task dispatches its children."""
        origin = Origin.of(task)

        async def dispatch(subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
            found = self.resolve(subagent, origin.parent)
            return await self.submit(origin, found, found.signature.bind(args, kwargs))

        return dispatch

    def resolve(self, subagent: Subagent[..., Any] | str, parent: str | None) -> Subagent[..., Any]:
        """Return the subagent that `parent` means.

        Raises:
            UnknownAgent: there is none of that name.
        """
        return self._registry.resolve(subagent, parent) if isinstance(subagent, str) else subagent

    async def submit(
        self,
        origin: Origin,
        subagent: Subagent[..., Any],
        arguments: Mapping[str, JsonValue],
        *,
        idempotency_key: str | None = None,
    ) -> TaskHandle[Any]:
        """Write the task and return its handle; only then does anybody else know of it.

        Args:
            origin: the session and the parent.
            subagent: what is to be run, with its options.
            arguments: the bound input, as JSON values.
            idempotency_key: the same key in the same session gives the same task.

        Raises:
            StoreUnavailable: nothing was accepted.
            IdempotencyConflict: the key was used with another input.
            InvalidInput: the key is unfit.
        """
        if idempotency_key is not None:
            checked_idempotency_key(idempotency_key)
        task = Task(
            birth=_birth(origin, subagent, dict(arguments)), agent=subagent.spec.agent or subagent.name
        )
        written = await self._journal.create(task, idempotency_key)
        return TaskHandle(written, self._journal, self._feed, subagent.signature.result)


def _birth(origin: Origin, subagent: Subagent[..., Any], arguments: dict[str, JsonValue]) -> Birth:
    return Birth(
        id=new_task_id(origin.session_id),
        session_id=origin.session_id,
        parent=origin.parent,
        subagent=subagent.spec.id,
        input=arguments,
        options=subagent.spec,
        lane=subagent.lane,
        traceparent=origin.traceparent or new_traceparent(),
        parent_task_id=origin.parent_task_id,
        root_task_id=origin.root_task_id,
        depth=origin.depth,
    )


def with_priority(subagent: Subagent[..., Any], priority: int | None) -> Subagent[..., Any]:
    """Return the subagent with another priority (0 to 9, 9 first), or as it is for None."""
    if priority is None:
        return subagent
    return replace(subagent, spec=subagent.spec.model_copy(update={"priority": priority}))
