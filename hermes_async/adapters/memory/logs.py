"""The sessions in memory: their logs, their inboxes, and who listens."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice

from hermes_async.adapters.memory.nudges import Nudges
from hermes_async.core.dialogue import RECENT
from hermes_async.core.hint import Hint
from hermes_async.core.home import Home
from hermes_async.core.metrics import SINCE, count
from hermes_async.core.page import Page
from hermes_async.domain.events import INBOX_TYPES, AnyEvent, restored


@dataclass
class _Session:
    seq: int = 0
    log: deque[AnyEvent] = field(default_factory=deque)
    inbox: dict[int, AnyEvent] = field(default_factory=dict)
    nudges: Nudges = field(default_factory=Nudges)
    listeners: int = 0
    touched: float = 0.0
    #: The `seq` of its newest messages, also to its tasks, by their ids.
    recent: dict[str, int] = field(default_factory=dict)
    #: That of the latest claim in the ledger.
    fence: int = 0


class MemoryLogs:
    """What a store keeps of its sessions.

    Args:
        max_length: events kept per session.
        now: the clock, in Unix seconds.
    """

    def __init__(self, max_length: int, now: Callable[[], float]) -> None:
        self.home = Home()
        self._max_length = max_length
        self._now = now
        self._sessions: dict[str, _Session] = {}
        self._revoked: dict[str, float] = {}
        #: What `core/metrics.py` counts.
        self._counts = Counter({SINCE: round(now() * 1000)})

    async def post(self, event: AnyEvent) -> int:
        return self._known(event) or self._know(event, self._log_now(event))

    async def head(self, session_id: str) -> tuple[int, str]:
        session = self._session(session_id)
        return session.seq, session.log[-1].id if session.log else ""

    async def resume(self, session_id: str, seq: int, event_id: str) -> int:
        session = self._session(session_id)
        known = next((event.id for event in session.log if event.seq == seq), None)
        if (known is None and session.seq >= seq) or (known and event_id in ("", known)):
            return 0
        session.seq = max(session.seq, seq) + 1
        return self._log_now(restored(session_id, session.seq))

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        session = self._session(session_id)
        found = list(islice((event for event in session.log if event.seq > after), limit))
        return Page.of(found, after)

    async def last_seq(self, session_id: str) -> int:
        return self._session(session_id).seq

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        entries = self._session(session_id).inbox
        return list(islice((event for seq, event in entries.items() if seq > after), limit))

    async def ack(self, session_id: str, seqs: Sequence[int]) -> int:
        entries = self._session(session_id).inbox
        return sum(entries.pop(seq, None) is not None for seq in seqs)

    async def unread(self, session_id: str) -> int:
        return len(self._session(session_id).inbox)

    @asynccontextmanager
    async def watch(self, session_id: str) -> AsyncIterator[Hint]:
        session = self._session(session_id)
        session.listeners += 1
        try:
            yield session.nudges
        finally:
            session.listeners -= 1

    async def nudge(self, session_id: str) -> None:
        self._session(session_id).nudges.tell()

    async def revoke_token(self, name: str, ttl: float) -> None:
        self._revoked[name] = self._now() + ttl

    async def revoked(self, names: Sequence[str]) -> Collection[str]:
        return {name for name in names if self._revoked.get(name, 0.0) > self._now()}

    def _session(self, session_id: str) -> _Session:
        self.home.loop()
        return self._sessions.setdefault(session_id, _Session(touched=self._now()))

    def _stamped(self, event: AnyEvent) -> AnyEvent:
        return event.model_copy(update={"time": self._now()})

    def _next_fence(self, session_id: str) -> int:
        session = self._session(session_id)
        session.fence += 1
        return session.fence

    def _known(self, event: AnyEvent) -> int:
        """Return the `seq` under which a message was logged, 0 if it was not."""
        return self._session(event.session_id).recent.get(event.id, 0)

    def _know(self, event: AnyEvent, seq: int) -> int:
        recent = self._session(event.session_id).recent
        recent[event.id] = seq
        if len(recent) > RECENT:
            del recent[next(iter(recent))]
        return seq

    def _log_now(self, event: AnyEvent) -> int:
        return self._log(self._stamped(event))

    def _log(self, event: AnyEvent, took: float | None = None) -> int:
        count(self._counts, event, took)
        session = self._session(event.session_id)
        session.seq += 1
        session.touched = self._now()
        event = event.model_copy(update={"seq": session.seq})
        session.log.append(event)
        while len(session.log) > self._max_length:
            session.log.popleft()
        if event.type in INBOX_TYPES:
            session.inbox[event.seq] = event
        session.nudges.tell()
        return session.seq

    def _forget_silent(self, horizon: float, alive: Collection[str]) -> None:
        """Forget sessions that were silent since, have no task and no listener, and old entries of others."""
        for session_id, session in list(self._sessions.items()):
            session.inbox = {seq: event for seq, event in session.inbox.items() if event.time > horizon}
            if session.touched <= horizon and session_id not in alive and not session.listeners:
                del self._sessions[session_id]
