"""One task in memory: its record, and what the store has to know beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hermes_async.adapters.memory.nudges import Nudges
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.lifecycle import DIALOGUE, LEGAL, UNFENCED
from hermes_async.domain.task import Task


@dataclass
class Entry:
    task: Task
    #: The last event: its id, its `seq`, and the greatest ordinal of the present attempt.
    last: str = ""
    seq: int = 0
    ordinal: int = 0
    #: The `seq` of its first event.
    born: int = 0
    lease_until: float | None = None
    #: When a retry goes on.
    due_at: float | None = None
    #: When to send its message again, and how often that was done.
    resend_at: float | None = None
    sends: int = 0
    #: When it ends by itself, and why.
    deadlines: dict[Reason, float] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    #: The `seq` of the open question in the inbox, and the token of the answer to each.
    question_seq: int = 0
    answered: dict[str, str] = field(default_factory=dict)
    #: What was said to it, how much of that no attempt has read, up to which `seq` any has, and which one.
    messages: list[AnyEvent] = field(default_factory=list)
    unread: int = 0
    heard: int = 0
    heard_now: tuple[int, int] = (0, 0)
    #: The ordinal up to which what each attempt has consumed is counted.
    spent: dict[int, int] = field(default_factory=dict)
    #: Who waits for news of this task.
    nudges: Nudges = field(default_factory=Nudges)

    def is_begun(self, attempt: int) -> bool:
        """Return whether that attempt is under way."""
        return self.task.status.is_begun and self.task.attempt == attempt


def admits(task: Task, event: AnyEvent) -> bool:
    """Return whether the law and the fence allow an event."""
    legal = event.type in LEGAL[task.status] - DIALOGUE
    fenced = event.type in UNFENCED or event.attempt == task.attempt
    again = event.type == "task.cancel_requested" and task.cancel_requested
    return legal and fenced and not again


def is_repeated(entry: Entry, event: AnyEvent) -> bool:
    """Return whether an event was written before."""
    same_attempt = event.attempt == entry.task.attempt and event.type not in UNFENCED
    return event.id == entry.last or (same_attempt and 0 < event.ordinal <= entry.ordinal)


def matches(task: Task, asked: Mapping[str, object]) -> bool:
    """Return whether a task has these values."""
    return all(getattr(task, name) == value for name, value in asked.items())


def is_over(at: float | None, now: float) -> bool:
    """Return whether a time has come."""
    return at is not None and at <= now
