"""A task's life as stretches of time, one below the other: what a waterfall draws. A fold of events, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.domain.task import Task

#: What happens at a moment, and takes no time.
POINTS: Final = {
    "task.cancel_requested": "cancel requested",
    "task.message": "message",
    "session.message": "message to the parent",
}


@dataclass(frozen=True)
class Stretch:
    """Something that took time: a task, its wait, an attempt, a question, a call; or a span of a trace."""

    name: str
    #: Unix seconds.
    start: float
    #: None: it goes on.
    end: float | None = None
    #: How far it is indented: it is part of the last one above it that is indented less.
    depth: int = 0
    #: What went wrong in it.
    fault: str = ""
    #: What else is to be said of it.
    note: str = ""
    task_id: str | None = None
    attempt: int = 0


@dataclass
class _Node:
    """A stretch that is being told, and what is part of it."""

    stretch: Stretch
    parts: list[_Node] = field(default_factory=list)

    def add(self, name: str, start: float, **said: Any) -> _Node:
        own = self.stretch
        stretch = Stretch(name, start, task_id=own.task_id, attempt=own.attempt, depth=own.depth + 1)
        self.parts.append(_Node(replace(stretch, **said)))
        return self.parts[-1]

    def close(self, end: float, fault: str = "", note: str = "") -> None:
        if self.stretch.end is None:
            note = note or self.stretch.note
            self.stretch = replace(self.stretch, end=end, fault=fault, note=note)

    def rows(self) -> Iterable[Stretch]:
        yield self.stretch
        for part in self.parts:
            yield from part.rows()


class _Life:
    """One task while its events are read."""

    def __init__(self, node: _Node) -> None:
        self.node = node
        self.attempt: _Node | None = None
        self._wait: _Node | None = node.add("wait", node.stretch.start)
        self._question: _Node | None = None

    @property
    def current(self) -> _Node:
        """Where what happens now belongs."""
        return self.attempt or self.node

    def hear(self, event: AnyEvent) -> None:
        """Go on by one event."""
        data: Any = event.data
        match event.type:
            case "task.started":
                self._stop(event.time)
                name = f"attempt {event.attempt} of {event.agent}"
                self.attempt = self.node.add(name, event.time, attempt=event.attempt, note=data.worker)
            case "task.retrying":
                self._again(event, _fault(data))
            case "task.attempt_lost":
                self._again(event, f"lost: {data.cause.replace('_', ' ')}")
            case "task.input_required":
                self._question = self.current.add("question", event.time, note=data.question)
            case "task.resumed" | "task.answered" if self._question is not None:
                self._question.close(event.time)
            case name if name in TERMINAL_TYPES:
                self._stop(event.time, _fault(data))
                self.node.close(event.time, _fault(data), note=name.removeprefix("task."))
            case _:
                self._point(event)

    def _again(self, event: AnyEvent, fault: str) -> None:
        self._stop(event.time, fault)
        self._wait = self.node.add("wait", event.time)

    def _stop(self, time: float, fault: str = "") -> None:
        """End what goes on, all but the task itself."""
        for node in (self._wait, self._question, self.attempt):
            if node is not None:
                node.close(time, fault if node is self.attempt else "")
        self._wait = self._question = self.attempt = None

    def _point(self, event: AnyEvent) -> None:
        """Note what takes no time."""
        data: Any = event.data
        if event.type in POINTS:
            self.current.add(POINTS[event.type], event.time, end=event.time)
        elif event.type.startswith("callback."):
            fault = ("given up: " if event.type == "callback.dead" else "") + _fault(data)
            self.node.add(f"callback {data.name}", event.time, end=event.time, fault=fault)


def timeline(task: Task, events: Iterable[AnyEvent]) -> list[Stretch]:
    """Return the life of a task and of all below it, in the order of a waterfall.

    Args:
        task: the record.
        events: the log of its session; what belongs to other tasks is passed over.
    """
    lives: dict[str, _Life] = {}
    for event in events:
        if event.type == "task.queued":
            _begin(lives, task, event)
        elif event.task_id in lives:
            lives[event.task_id].hear(event)
    if task.id not in lives:
        return _from_record(task)
    return list(lives[task.id].node.rows())


def _begin(lives: dict[str, _Life], root: Task, event: AnyEvent) -> None:
    name = f"task {event.agent}"
    said: dict[str, Any] = {"task_id": event.task_id, "attempt": 0}
    parent = lives.get(getattr(event.data, "parent_task_id", None) or "")
    if event.task_id == root.id:
        lives[root.id] = _Life(_Node(Stretch(name, event.time, **said)))
    elif parent is not None and event.task_id is not None:
        lives[event.task_id] = _Life(parent.current.add(name, event.time, **said))


#: How a status is told of whose events are no longer kept.
_TRIMMED: Final = "its events are no longer kept"


def _from_record(task: Task) -> list[Stretch]:
    """Return what the record alone knows."""
    fault = f"{task.error.type}: {task.error.message}" if task.error else ""
    status = f"{task.status}; {_TRIMMED}"
    top = Stretch(f"task {task.agent}", task.created_at, task.finished_at, 0, fault, status, task.id)
    node = _Node(top)
    if task.started_at is not None:
        name, start = f"attempt {task.attempt} of {task.agent}", task.started_at
        node.add(name, start, end=task.finished_at, fault=fault, attempt=task.attempt)
    return list(node.rows())


def _fault(data: Any) -> str:
    error = getattr(data, "error", None)
    return f"{error.type}: {error.message}" if error else ""
