"""What the core needs from the world: a store for the truth, a queue to the workers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Task, TaskStatus

#: Seconds that a publisher has to confirm a message before the janitor publishes it again.
PUBLISH_GRACE = 10.0


@dataclass(frozen=True)
class Parcel:
    """A ready-made broker message, for a store that can add it in the same script as the record."""

    key: str
    body: str


@dataclass(frozen=True)
class Page:
    """A stretch of a session's log; `gap` names the first and last `seq` that were asked for but trimmed."""

    events: Sequence[AnyEvent]
    gap: tuple[int, int] | None = None


@dataclass(frozen=True)
class Snapshot:
    """All tasks of a session as they are once every event up to `seq` is applied."""

    seq: int
    tasks: Sequence[Task]


@dataclass(frozen=True)
class Renewal:
    """What a worker learns when it renews its leases."""

    #: Tasks whose attempt is this worker's, and whose lease now lasts longer.
    held: Sequence[str] = ()
    #: Those of them that somebody asked to cancel.
    cancelled: Sequence[str] = ()


class Hint(Protocol):
    """A nudge that a session may have news; it may come for nothing, and may be lost."""

    async def wait(self, timeout: float) -> None:
        """Return at the next nudge, or after `timeout` seconds."""
        ...


class Store(Protocol):
    """The one pen and its readers. Every method that writes is atomic and may be repeated."""

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        """Write a new queued task with its `task.queued` event; return the record that now stands.

        With an idempotency key that the session has used before, that is the earlier task, unchanged.
        """
        ...

    async def load(self, task_id: str) -> Task | None:
        """Return the record of a task."""
        ...

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        """Start the next attempt of a queued task, or return None because it is not to be run now.

        A claim whose reply was lost may be repeated with its token.
        """
        ...

    async def append(self, event: AnyEvent, *, lapsed: bool = False) -> int:
        """Apply a task's event and log it; return its `seq`, or 0 when it is refused.

        Refused is what the legal table forbids and what an older attempt writes; with `lapsed`, also what
        comes while the attempt's lease is alive. What was written before is not written again.
        """
        ...

    async def post(self, event: AnyEvent) -> int:
        """Log an event of the session itself and return its `seq`."""
        ...

    async def renew(self, worker: str, task_ids: Sequence[str], lease: float) -> Renewal:
        """Keep the leases (seconds) of those tasks alive that the worker has claimed, in one go."""
        ...

    async def lapsed(self, limit: int = 100) -> Sequence[str]:
        """Return tasks whose lease ran out."""
        ...

    async def due(self, limit: int = 100) -> Sequence[str]:
        """Return queued tasks whose message should be on the broker by now but was not confirmed there."""
        ...

    async def release(self, task_id: str) -> Task | None:
        """Put a due task on the broker; return its record when that is left to the caller."""
        ...

    async def published(self, task: Task) -> None:
        """Note that the broker has confirmed the message of a task's next attempt."""
        ...

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        """Return the session's log after `seq`, oldest first."""
        ...

    async def last_seq(self, session_id: str) -> int:
        """Return the `seq` of the session's newest event, 0 for a session without any."""
        ...

    async def snapshot(self, session_id: str) -> Snapshot:
        """Return the session's tasks with the `seq` up to which they are current."""
        ...

    async def tasks(
        self,
        *,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        agent: str | None = None,
        limit: int = 50,
    ) -> Sequence[Task]:
        """Return tasks that match, newest first."""
        ...

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        """Return what the parent has not acknowledged yet, oldest first."""
        ...

    async def ack(self, session_id: str, seqs: Sequence[int]) -> int:
        """Remove entries from the inbox; return how many were there."""
        ...

    def watch(self, session_id: str) -> AbstractAsyncContextManager[Hint]:
        """Listen for nudges about a session."""
        ...

    async def prune(self, retention: float) -> int:
        """Forget tasks that ended more than `retention` seconds ago, and sessions that were silent since.

        A session that somebody listens to is kept. Returns how many tasks were forgotten.
        """
        ...

    async def ping(self) -> str:
        """Return what answers, as `name version`.

        Raises:
            StoreUnavailable: nothing answers within 3 s.
        """
        ...

    async def close(self) -> None:
        """Give back every connection."""
        ...


class Queue(Protocol):
    """The way to the workers. It carries a task's id and trace, nothing else."""

    def parcel(self, task: Task) -> Parcel | None:
        """Return the message for the store to add, or None when it must be published apart."""
        ...

    async def publish(self, task: Task) -> None:
        """Hand the task to the broker and wait for its confirmation."""
        ...

    async def revoke(self, task_id: str, *, force: bool) -> None:
        """Ask every worker to stop the task if it has it; a hint, the record decides."""
        ...

    async def close(self) -> None:
        """Give back every connection."""
        ...
