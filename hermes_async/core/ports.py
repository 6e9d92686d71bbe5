"""What the core needs from the world: a store for the truth, a queue to the workers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from hermes_async.core.accounts import Accounts
from hermes_async.core.dialogue import Dialogue
from hermes_async.core.hint import Hint
from hermes_async.core.home import Home
from hermes_async.core.ledger import Ledger
from hermes_async.core.metrics import Measured
from hermes_async.core.page import Page
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane, Task, TaskStatus

#: Seconds that a publisher has to confirm a message before the janitor publishes it again.
PUBLISH_GRACE = 10.0
#: Seconds after which a message that nobody has claimed is sent again, the first time; then each time twice
#: as many. A message that comes twice is dropped at its claim.
RESEND_AFTER = 60.0
#: What a round has done that found nothing.
NOTHING_SWEPT: Mapping[str, int] = MappingProxyType({})
#: Tasks that may be on the broker while no worker is known, and at least beyond the workers' slots.
UNKNOWN_SLOTS, SPARE_SLOTS = 32, 2


def places(slots: int) -> int:
    """Return how many tasks of a lane may be on the broker or running, given its workers' slots.

    A quarter more than can run keeps the workers busy from one end to the next start; not more, because
    what is on the broker is first come, first served, and a light parent would wait for a heavy one.
    """
    return slots + max(SPARE_SLOTS, slots // 4) if slots else UNKNOWN_SLOTS


def refill(slots: int) -> int:
    """Return how many places must be free before those who wait are let in.

    Letting them in a few at a time costs less than one by one; it is at most half of what `places` gives
    beyond the slots, so the workers always have something.
    """
    return max(1, slots // 8)


@dataclass(frozen=True)
class Parcel:
    """A ready-made broker message, for a store that can add it in the same script as the record."""

    key: str
    body: str


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


@dataclass(frozen=True)
class Cancelled:
    """What a cancel has reached: the task and, with `cascade`, everything below it."""

    #: Tasks that were asked to stop now and have not ended yet: somebody runs them.
    running: Sequence[str] = ()
    #: Tasks that had not begun, and never will.
    ended: Sequence[str] = ()


@dataclass(frozen=True)
class Traffic:
    """How many tasks are where, and who keeps order."""

    #: For each lane: tasks on the broker or running, and how many its living workers can run at once.
    admitted: Mapping[str, int]
    slots: Mapping[str, int]
    #: Tasks that wait for their turn in front of the broker.
    waiting: int = 0
    #: The worker whose janitor sweeps, and what all janitors together have done since the state is new.
    leader: str | None = None
    swept: Mapping[str, int] = field(default_factory=dict)
    #: For each lane: the agents that at least one of its living workers knows.
    agents: Mapping[str, Collection[str]] = field(default_factory=dict)


class Store(Dialogue, Accounts, Measured, Protocol):
    """The one pen and its readers. Every method that writes is atomic and may be repeated."""

    @property
    def ledger(self) -> Ledger:
        """The callbacks that are due; the pen files them."""
        ...

    def on_admitted(self, publish: Callable[[Sequence[str]], None]) -> None:
        """Call `publish` with tasks that are let through the gate and have no parcel: see `published`."""
        ...

    def on_cancelled(self, revoke: Callable[[Sequence[str]], None]) -> None:
        """Call `revoke` with running tasks that are to stop: the attempt that dispatched them has failed."""
        ...

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        """Write a new queued task with its `task.queued` event; return the record that now stands.

        With an idempotency key that was used before in its circle (`domain/idempotency.py`), that is the
        earlier task, unchanged.
        It goes on the broker at once, or waits in line when a limit or the want of workers says so.

        Raises:
            IdempotencyConflict: the key stands for another input, or for a task of another session.
            TaskRejected: too many tasks wait already, nothing is left of a budget, or its parent task has
                ended or is to be cancelled.
        """
        ...

    async def create_all(self, tasks: Sequence[Task], parcels: Sequence[Parcel | None]) -> Sequence[Task]:
        """Write many new tasks in as few round trips as may be; each stands or is refused by itself.

        Raises:
            TaskRejected: the first refusal; the tasks before it, and perhaps some after it, stand.
        """
        ...

    async def load(self, task_id: str) -> Task | None:
        """Return the record of a task, or raise UnreadableTask: this version cannot read it."""
        ...

    async def load_all(self, task_ids: Collection[str]) -> Sequence[Task]:
        """Return the records that there are of those tasks; what cannot be read is left out, and logged."""
        ...

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        """Start the next attempt of an admitted task, or return None because it is not to be run now.

        A claim whose reply was lost may be repeated by its worker with its token.

        Raises:
            UnreadableTask: the attempt has begun, but this version cannot read what it is to do.
        """
        ...

    async def append(
        self,
        event: AnyEvent,
        *,
        lapsed: bool = False,
        own: bool = False,
        moved: Task | None = None,
        parcel: Parcel | None = None,
    ) -> int:
        """Apply a task's event and log it; return its `seq`, or 0 when it is refused.

        Refused is what the legal table forbids, what an older attempt writes, and what belongs to a
        `Dialogue`; with `lapsed`, also what comes while the attempt's lease is alive; with `own`, for what
        the attempt itself says, also what comes after it was lost. What was written before is not written
        again. `moved` is the task as an event leaves it that moves it to another agent or lane, and `parcel`
        what replaces its own.
        """
        ...

    async def cancel(self, task_id: str, *, force: bool, cascade: bool) -> Cancelled:
        """Ask a task, and with `cascade` all its descendants, to stop; what has not begun ends at once."""
        ...

    async def step_aside(self, task: Task) -> None:
        """Give back what a running attempt holds of the limits, while it waits for its children."""
        ...

    async def step_back(self, task: Task) -> bool | None:
        """Ask for it again: True: it is there; False: not yet, a nudge tells; None: not our attempt.

        A question that the attempt has open is withdrawn.
        """
        ...

    async def enlist(
        self, worker: str, lane: Lane, slots: int, ttl: float, agents: Collection[str] = ()
    ) -> None:
        """Say that a worker can run so many tasks at once, of these agents, for the next `ttl` seconds.

        With 0 slots it leaves.
        """
        ...

    async def lead(self, worker: str, ttl: float, swept: Mapping[str, int] = NOTHING_SWEPT) -> bool:
        """Be the one that sweeps, or go on being it, for `ttl` seconds; False: another is.

        `swept` says how many attempts and tasks the last round found `lost`, `released` and `expired`; a
        call that is repeated counts them again.
        """
        ...

    async def traffic(self) -> Traffic:
        """Return what the gate sees."""
        ...

    async def post(self, event: AnyEvent) -> int:
        """Log an event of the session itself and return its `seq`; that of a known message comes again."""
        ...

    async def renew(self, worker: str, task_ids: Sequence[str], lease: float) -> Renewal:
        """Keep the leases (seconds) of those tasks alive that the worker has claimed, in one go."""
        ...

    async def lapsed(self, limit: int = 100) -> Sequence[str]:
        """Return tasks whose lease ran out."""
        ...

    async def overdue(self, limit: int = 100) -> Sequence[tuple[str, Reason]]:
        """Return tasks whose time is over: not started (`expired`), or not ended (`total_timeout`)."""
        ...

    async def tend(self, limit: int = 100) -> int:
        """Let to the gate whose retry is due, send again what seems lost; return how many that were."""
        ...

    async def published(self, task_ids: Sequence[str]) -> None:
        """Note that the broker has confirmed the messages of these tasks."""
        ...

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        """Return the session's log after `seq`, oldest first."""
        ...

    async def last_seq(self, session_id: str) -> int:
        """Return the `seq` of the session's newest event, 0 for a session without any."""
        ...

    async def snapshot(self, session_id: str) -> Snapshot:
        """Return the session's tasks, as `tasks` does, with the `seq` up to which they are current."""
        ...

    async def tasks(
        self,
        *,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        agent: str | None = None,
        limit: int = 50,
    ) -> Sequence[Task]:
        """Return tasks that match, newest first; those that cannot be read are left out, and logged."""
        ...

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        """Return what the parent has not acknowledged yet, oldest first."""
        ...

    async def ack(self, session_id: str, seqs: Sequence[int]) -> int:
        """Remove entries from the inbox; return how many were there, 0 for those that are removed again."""
        ...

    async def unread(self, session_id: str) -> int:
        """Return how many entries the inbox has."""
        ...

    async def head(self, session_id: str) -> tuple[int, str]:
        """Return the `seq` of a session's last event (0: it has none) and its id, if that is not trimmed."""
        ...

    async def resume(self, session_id: str, seq: int, event_id: str) -> int:
        """Have the log go on beyond `seq` if it does not have what a reader has read up to there.

        A server may lose its last writes, or be given an older copy. Then a `session.restored` is written
        behind a hole, which everybody takes for a gap, however far he has read.

        Args:
            session_id: whose log.
            seq: how far the reader has come.
            event_id: of the last event that it has read; empty: unknown.

        Returns:
            The `seq` of that event; 0: the log is as the reader knows it.
        """
        ...

    async def born(self, task_id: str) -> int:
        """Return the `seq` of a task's first event; 0: there is no such task."""
        ...

    @property
    def home(self) -> Home:
        """Where it may be used, and until when."""
        ...

    def watch(self, session_id: str) -> AbstractAsyncContextManager[Hint]:
        """Listen for nudges about a session."""
        ...

    async def nudge(self, session_id: str) -> None:
        """Nudge who listens to a session, without any news: it proves that nudges arrive."""
        ...

    async def revoke_token(self, name: str, ttl: float) -> None:
        """Let a token, known by its `jti`, count no more for `ttl` seconds: those that it has left."""
        ...

    async def revoked(self, names: Sequence[str]) -> Collection[str]:
        """Return those of the tokens that are revoked."""
        ...

    async def prune(self, retention: float) -> int:
        """Forget tasks that ended more than `retention` seconds ago, and sessions that were silent since.

        A session that somebody listens to is kept, but for inbox entries that are as old: they go with the
        records of their time. A task with a row in the ledger is kept; dead rows are forgotten
        `DEAD_RETENTION` after their death. Returns how many tasks were forgotten.
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

    async def publish_all(self, tasks: Sequence[Task]) -> None:
        """Hand tasks to the broker and wait for its confirmation of all.

        Raises:
            QueueUnavailable: some may not be there.
        """
        ...

    async def ping(self) -> None:
        """See that the broker lets us in.

        Raises:
            QueueUnavailable: it does not, or is not there.
        """
        ...

    async def revoke(self, task_ids: Sequence[str], *, force: bool) -> None:
        """Ask every worker to stop those of the tasks that it has; a hint, the record decides."""
        ...

    async def close(self) -> None:
        """Give back every connection."""
        ...
