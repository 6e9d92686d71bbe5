"""The gate in memory: the same order as `redis_store/lua/gate.lua`, which explains it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from hermes_async.core.ports import Traffic, places, refill
from hermes_async.domain.task import Lane, Task, TaskStatus


class Line(NamedTuple):
    """Those of a session and subagent who wait for a lane."""

    lane: Lane
    subagent: str
    session_id: str

    @classmethod
    def of(cls, task: Task) -> Line:
        """Return the line in which a task waits."""
        return cls(task.lane, task.birth.subagent, task.session_id)

    @property
    def who(self) -> tuple[str, str]:
        """To whom the limit of a subagent applies, whatever the lane."""
        return self.subagent, self.session_id

    @property
    def key(self) -> str:
        """Breaks a tie as Redis does."""
        return "/".join(self)


class _Worker(NamedTuple):
    """What a worker says of itself, until some moment."""

    lane: Lane
    slots: int
    until: float
    agents: Collection[str]


#: Where a waiting task stands in its line: its urgency (0 is first), then its age.
_Rank = tuple[int, int]
#: Where a line stands in its ring: the urgency of its head, then the turn of its session.
_Place = tuple[int, int]


class MemoryGate:
    """Who is admitted, and who waits in which order.

    Args:
        task_of: finds the record of a task.
        admit: is called with each task that is let in.
        max_running: tasks that may be admitted at once, in all lanes.
    """

    def __init__(
        self, task_of: Callable[[str], Task], admit: Callable[[str], None], max_running: int | None = None
    ) -> None:
        self._task_of = task_of
        self._admit = admit
        self._max_running = max_running
        self._admitted: dict[str, Task] = {}
        #: How many are admitted, by lane, by session and subagent, by agent.
        self._held: Counter[Hashable] = Counter()
        self._lines: dict[Line, dict[str, _Rank]] = {}
        self._rings: dict[Lane, dict[Line, _Place]] = {lane: {} for lane in Lane}
        self._parked: defaultdict[str, dict[Line, _Place]] = defaultdict(dict)
        self._turns: Counter[str] = Counter()
        self._turn = 0
        self._workers: dict[str, _Worker] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    def has_admitted(self, task_id: str) -> bool:
        """Return whether a task is on the broker or running."""
        return task_id in self._admitted

    def has_in_line(self, task: Task) -> bool:
        """Return whether a task waits."""
        return task.id in self._lines.get(Line.of(task), {})

    def enlist(
        self,
        worker: str,
        lane: Lane,
        slots: int,
        now: float = 0.0,
        until: float = math.inf,
        agents: Collection[str] = (),
    ) -> None:
        """A worker has so many slots until some moment; of others that moment may be over."""
        self._workers[worker] = _Worker(lane, slots, until, agents)
        self._workers = {name: its for name, its in self._workers.items() if its.slots and its.until > now}
        self.let_in()

    def traffic(self, now: float) -> Traffic:
        """Return what is where; a worker that is overdue counts no more."""
        return Traffic(
            admitted={lane.value: self._held[lane] for lane in Lane},
            slots={lane.value: self._slots(lane, now) for lane in Lane},
            waiting=self.waiting,
            agents={lane.value: {*self._agents(lane, now)} for lane in Lane},
        )

    def enter(self, task: Task, born: int) -> None:
        """A task wants to run: now if nobody is before it, else when it is its turn.

        Args:
            task: the record.
            born: the `seq` of its first event: within a session, that is its age.
        """
        line = Line.of(task)
        if not self._rings[line.lane] and line not in self._lines and self._may_go(task):
            self._grant(task)
            return
        rank = -1 if task.status is TaskStatus.RUNNING else 9 - task.birth.options.priority
        former = self._task_of(self._head(line)) if line in self._lines else task
        self._lines.setdefault(line, {})[task.id] = (rank, born)
        self._place(line)
        if former.agent != task.agent and self._head(line) == task.id:
            self._pass_on(former)
        self.let_in()

    def leave(self, task: Task) -> None:
        """A task gives back what it holds, or no longer waits."""
        held = self._admitted.pop(task.id, None)
        if held is None:
            if self._take_out(Line.of(task), task.id):
                self._pass_on(task)
                self.let_in()
            return
        self._held.subtract(_held_by(held))
        if held.birth.options.concurrency_limit:
            for lane in Lane:
                self._place(Line.of(held)._replace(lane=lane))
        if held.address.concurrency_limit:
            self._unpark(held.agent)
        self.let_in()

    def let_in(self) -> None:
        """Admit those who wait, as far as there is room."""
        lanes = [lane for lane in Lane if self._room(lane) >= refill(self._slots(lane))]
        while first := self._first(lanes):
            self._take(*first)

    def _first(self, lanes: Iterable[Lane]) -> tuple[Line, _Place] | None:
        """Return the line that is next, of those of these lanes that have room."""
        firsts = [
            min(self._rings[lane].items(), key=lambda item: (item[1], item[0].key))
            for lane in lanes
            if self._rings[lane] and self._has_room(lane)
        ]
        return min(firsts, key=lambda item: item[1], default=None)

    def _take(self, line: Line, place: _Place) -> None:
        """Let the head of a line in, or take the line out of the ring because it may not go."""
        ring, waiting = self._rings[line.lane], self._lines[line]
        head = self._head(line)
        task = self._task_of(head)
        now = (waiting[head][0], max(self._turns[line.session_id], place[1]))
        if now > place:  # its session had its turn
            ring[line] = now
        elif self._is_full(Line.of(task).who, task.birth.options.concurrency_limit):
            del ring[line]
            self._pass_on(task)
        elif self._is_full(task.agent, task.address.concurrency_limit):
            self._parked[task.agent][line] = ring.pop(line)
        else:
            self._turns[line.session_id], self._turn = now[1] + 1, now[1]
            self._take_out(line, head)
            self._grant(task)

    def _take_out(self, line: Line, task_id: str) -> bool:
        """Return whether the task did wait."""
        waiting = self._lines.get(line, {})
        if waiting.pop(task_id, None) is None:
            return False
        if waiting:
            self._place(line)
            return True
        self._lines.pop(line, None)
        self._rings[line.lane].pop(line, None)
        if not self._lines:
            self._turns.clear()
            self._turn = 0
        return True

    def _place(self, line: Line) -> bool:
        """Let a line take part, behind those whose turn is before its session's."""
        waiting = self._lines.get(line)
        if waiting is None:
            return False
        turn = max(self._turns[line.session_id], self._turn)
        self._rings[line.lane][line] = (min(waiting.values())[0], turn)
        return True

    def _unpark(self, agent: str) -> None:
        parked = self._parked[agent]
        while parked:
            line = min(parked, key=lambda line: (parked[line], line.key))
            del parked[line]
            if self._place(line) and self._task_of(self._head(line)).agent == agent:
                return

    def _pass_on(self, task: Task) -> None:
        """A task that waited does not take a slot of its agent, which may have been offered to it."""
        if not self._is_full(task.agent, task.address.concurrency_limit):
            self._unpark(task.agent)

    def _head(self, line: Line) -> str:
        waiting = self._lines[line]
        return min(waiting, key=lambda task_id: waiting[task_id])

    def _grant(self, task: Task) -> None:
        self._admitted[task.id] = task
        self._held.update(_held_by(task))
        self._admit(task.id)

    def _may_go(self, task: Task) -> bool:
        return (
            self._has_room(task.lane)
            and not self._is_full(Line.of(task).who, task.birth.options.concurrency_limit)
            and not self._is_full(task.agent, task.address.concurrency_limit)
        )

    def _has_room(self, lane: Lane) -> bool:
        if self._max_running is not None and len(self._admitted) >= self._max_running:
            return False
        return self._room(lane) > 0

    def _room(self, lane: Lane) -> int:
        return places(self._slots(lane)) - self._held[lane]

    def _is_full(self, holder: Hashable, limit: int | None) -> bool:
        return limit is not None and self._held[holder] >= limit

    def _slots(self, lane: Lane, now: float = -math.inf) -> int:
        return sum(its.slots for its in self._alive(lane, now))

    def _agents(self, lane: Lane, now: float) -> Iterator[str]:
        return chain.from_iterable(its.agents for its in self._alive(lane, now))

    def _alive(self, lane: Lane, now: float) -> Iterator[_Worker]:
        return (its for its in self._workers.values() if its.lane is lane and its.until > now)


def _held_by(task: Task) -> Iterator[Hashable]:
    """Yield all on whose account an admitted task goes."""
    yield task.lane
    if task.birth.options.concurrency_limit:
        yield Line.of(task).who
    if task.address.concurrency_limit:
        yield task.agent
