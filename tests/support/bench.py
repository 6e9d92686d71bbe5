"""The core over memory, with a store that can be away and a clock that can be moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from hermes_async.adapters.memory import MemoryQueue, MemoryStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.page import Page
from hermes_async.core.ports import Parcel
from hermes_async.core.registry import Registry
from hermes_async.core.session import Session
from hermes_async.core.subagent import Subagent
from hermes_async.core.tracing import UNTRACED, Tracing
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.budget import Spent
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Lane, Task
from hermes_async.domain.usage import Usage


class MovableClock:
    """The time of day, plus what a test adds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class WeakStore(MemoryStore):
    """A store that is away as often as it is told, before or after it has done what was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.away = 0
        #: Writes that are done, and then reported as failed.
        self.mute: dict[str, int] = {}
        self.calls: list[str] = []

    def _check(self, name: str) -> None:
        self.calls.append(name)
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")

    def _say(self, name: str) -> None:
        if self.mute.get(name):
            self.mute[name] -= 1
            raise StoreUnavailable("its reply was lost")

    async def create(self, task: Task, parcel: Parcel | None, idempotency_key: str | None) -> Task:
        self._check("create")
        return await super().create(task, parcel, idempotency_key)

    async def load(self, task_id: str) -> Task | None:
        self._check("load")
        return await super().load(task_id)

    async def claim(self, task_id: str, worker: str, lease: float, token: str = "") -> Task | None:
        self._check("claim")
        task = await super().claim(task_id, worker, lease, token)
        self._say("claim")
        return task

    async def append(self, event: AnyEvent, **how: Any) -> int:
        self._check("append")
        seq = await super().append(event, **how)
        self._say("append")
        return seq

    async def spend(
        self, task: Task, ordinal: int, amount: Usage, *, asks: bool, model: str = ""
    ) -> Spent | None:
        self._check("spend")
        spent = await super().spend(task, ordinal, amount, asks=asks, model=model)
        self._say("spend")
        return spent

    async def events(self, session_id: str, after: int, limit: int) -> Page:
        self._check("events")
        return await super().events(session_id, after, limit)

    async def last_seq(self, session_id: str) -> int:
        self._check("last_seq")
        return await super().last_seq(session_id)

    async def inbox(self, session_id: str, after: int, limit: int) -> Sequence[AnyEvent]:
        self._check("inbox")
        return await super().inbox(session_id, after, limit)


class Bench:
    """A Hermes of which a test holds every part."""

    def __init__(
        self,
        *agents: Subagent[..., Any],
        config: AgentsConfig | None = None,
        slots: int = 10_000,
        queue: MemoryQueue | None = None,
        tracing: Tracing = UNTRACED,
        **store: Any,
    ) -> None:
        self.clock = MovableClock()
        chosen = config or AgentsConfig()
        self.store = WeakStore(now=self.clock, limits=chosen.limits, **store)
        for lane in Lane:
            self.store._gate.enlist(f"w {lane}", lane, slots)
        self.queue = queue or MemoryQueue()
        self.hermes = Hermes(Registry(chosen, agents), self.store, self.queue, tracing=tracing)
        self.runner = self.hermes.runner("w1", lease=60.0)

    @property
    def session(self) -> Session:
        return self.hermes.session("chat")

    async def dispatch(self, agent: Subagent[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Dispatch and return the record; the message is taken off the queue."""
        handle = await self.session.dispatch(agent, *args, **kwargs)
        assert await self.queue.get() == handle.id
        return await handle.task()

    async def record(self, task: Task) -> Task:
        found = await self.store.load(task.id)
        assert found is not None
        return found

    async def log(self) -> list[AnyEvent]:
        return list((await self.store.events("chat", 0, 100_000)).events)

    @property
    def followers(self) -> int:
        """How many listen to the session in this process."""
        reader = self.hermes.feed._readers.get("chat")
        return reader.followers if reader else 0

    @property
    def awaited(self) -> int:
        """For how many tasks somebody waits."""
        reader = self.hermes.feed._readers.get("chat")
        return len(reader._ends) if reader else 0

    async def types(self) -> list[str]:
        return [event.type.removeprefix("task.") for event in await self.log()]


#: Makes a bench that is closed after the test.
MakeBench = Callable[..., Bench]
