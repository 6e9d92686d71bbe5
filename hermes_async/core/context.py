"""What an agent function is given: who it works for, and how it speaks while it works."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from pydantic import BaseModel, JsonValue

from hermes_async.core.agent import Subagent
from hermes_async.core.handle import TaskHandle
from hermes_async.core.signature import EVENT_BYTES, as_json
from hermes_async.domain.events import MessageData, PartialData
from hermes_async.domain.task import Progress, Task

P = ParamSpec("P")
R = TypeVar("R")

#: Characters of a progress message; the rest is cut.
STATUS_LENGTH = 500


class Voice(Protocol):
    """Where an agent's news go; it must take them from any thread without blocking."""

    def tell(self, key: str, type_: str, data: BaseModel) -> None:
        """Note a piece of news; an unwritten one of the same key is replaced."""
        ...


class Delegate(Protocol):
    """How a context starts child tasks."""

    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start one."""
        ...

    async def dispatch_many(
        self, subagent: Any, inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[Any]]:
        """Start many of a kind."""
        ...


class TaskContext:
    """The first argument of every agent. Its methods work in `def` and in `async def` alike."""

    def __init__(self, task: Task, voice: Voice, delegate: Delegate) -> None:
        self.task_id = task.id
        self.session_id = task.session_id
        self.parent = task.birth.parent
        self.attempt = task.attempt
        self.depth = task.birth.depth
        self.trace_id = task.birth.trace_id
        #: True once somebody asked to cancel, or the attempt was given to another worker.
        self.cancelled = False
        self._voice = voice
        self._delegate = delegate
        self._ordinals = itertools.count(1)

    def progress(self, percent: float | None = None, message: str = "") -> None:
        """Say how far the work is; may be called often, only the latest of each quarter second is sent.

        Args:
            percent: from 0 to 100, clamped; None when unknown.
            message: what is being done right now.
        """
        clamped = None if percent is None else min(100.0, max(0.0, float(percent)))
        self._voice.tell(
            "progress", "task.progress", Progress(progress_percent=clamped, message=_line(message))
        )

    @property
    def progress_callback(self) -> Callable[[float, str], None]:
        """A plain `f(percent, message)` to hand to a library."""
        return self.progress

    def partial(self, value: JsonValue, name: str = "output") -> None:
        """Show a part of the result before the end; a later one of the same name replaces it.

        Raises:
            InvalidInput: it has no JSON form, or is larger than an event may be.
        """
        shown = as_json(value, f"the partial result {name!r}", limit=EVENT_BYTES)
        self._voice.tell(f"partial {name}", "task.partial", PartialData(name=name, value=shown))

    def message(self, text: str, data: JsonValue = None) -> None:
        """Say something to the parent; it lands in the session's inbox.

        Raises:
            InvalidInput: it has no JSON form, or is larger than an event may be.
        """
        said = as_json({"text": text, "data": data}, "the message", limit=EVENT_BYTES)
        self._voice.tell(f"message {next(self._ordinals)}", "session.message", MessageData(**said))

    @overload
    async def dispatch(
        self, subagent: Subagent[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...
    @overload
    async def dispatch(self, subagent: str, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]: ...
    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start a child task in the same session and return its handle at once.

        A task that waits for its child takes no slot meanwhile, and a cancel of it reaches the child.

        Raises:
            TaskRejected: a limit says no, or this task is to be cancelled.
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
        """Start a child task for each input (its arguments by name) in a few round trips."""
        return await self._delegate.dispatch_many(subagent, inputs)


def _line(text: str) -> str:
    """Return text that fits on a status line and has a UTF-8 form."""
    return text[:STATUS_LENGTH].encode("utf-8", "replace").decode()
