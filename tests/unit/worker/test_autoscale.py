"""How large a pool should be, decided from numbers alone, and what then becomes of a pool that is a stub."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from celery.bootsteps import CLOSE, RUN
from celery.worker import state
from hypothesis import given
from hypothesis import strategies as st

from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig, PoolSpec
from hermes_async.worker.autoscale import LOOK_EVERY, SATURATED, Look, Scale, ThresholdAutoscaler
from hermes_async.worker.cpu import CpuMeter
from hermes_async.worker.pool import AsyncioPool

PATIENCE = 30.0
THRESHOLD = 0.7

busy_and_cpu = st.tuples(st.integers(0, 40), st.integers(0, 20), st.floats(0, 2))


def look(slots: int, running: int, *, held: int | None = None, cpu: float = 0.0) -> Look:
    """A pool of 2 to 10 slots."""
    return Look(slots, 2, 10, running, running if held is None else held, cpu)


def sizes(*looks: Look, every: float = 1.0) -> list[int]:
    """What one scale says to some looks in a row."""
    scale = Scale(THRESHOLD, PATIENCE)
    return [scale.slots(seen, number * every) for number, seen in enumerate(looks)]


def test_a_busy_pool_doubles_at_every_second_look() -> None:
    assert sizes(look(2, 2), look(2, 2), look(4, 3), look(4, 3), look(8, 6), look(8, 6)) == [
        2,
        4,
        4,
        8,
        8,
        10,
    ]


@pytest.mark.parametrize(
    "unlike",
    [look(4, 2), look(4, 4, cpu=SATURATED), look(4, 0, held=4)],
    ids=["less load", "no CPU left", "nothing begins"],
)
def test_one_look_that_says_otherwise_is_enough_to_stay(unlike: Look) -> None:
    assert sizes(look(4, 4), unlike, look(4, 4), unlike) == [4, 4, 4, 4]


def test_the_threshold_itself_is_load_enough() -> None:
    assert sizes(look(10, 7), look(10, 7))[-1] == 10
    whole = Scale(1.0, PATIENCE)
    assert [whole.slots(look(4, 3), 0), whole.slots(look(4, 3), 1)] == [4, 4]
    assert [whole.slots(look(4, 4), 2), whole.slots(look(4, 4), 3)] == [4, 8]


def test_a_calm_pool_halves_once_in_a_while() -> None:
    calm = [look(10, 3)] * 3 + [look(5, 1)] * 2 + [look(3, 1)] * 2 + [look(2, 0)] * 3
    assert sizes(*calm, every=PATIENCE / 2) == [10, 10, 5, 5, 3, 3, 2, 2, 2, 2]
    assert sizes(*[look(5, 2)] * 4, every=PATIENCE) == [5] * 4  # 0.4 is not less than half of 0.7


def test_what_waits_for_a_slot_is_no_calm() -> None:
    assert sizes(*[look(10, 0, held=4)] * 4, every=PATIENCE) == [10] * 4


def test_a_moment_of_load_begins_the_calm_anew() -> None:
    idle, some = look(8, 0), look(8, 3)
    assert sizes(idle, idle, some, idle, idle, every=PATIENCE * 0.6) == [8, 8, 8, 8, 4]


def test_another_range_is_obeyed_at_once_but_for_what_runs() -> None:
    scale = Scale(THRESHOLD, PATIENCE)
    assert scale.slots(Look(2, 5, 10, 0, 0), 0) == 5
    assert scale.slots(Look(10, 2, 4, 7, 7), 0) == 7
    assert scale.slots(Look(10, 2, 4, 1, 1), 0) == 4
    assert scale.slots(Look(0, 1, 4, 0, 0), 0) == 1  # Celery allows a pool without processes


@given(
    threshold=st.floats(0.05, 1),
    least=st.integers(1, 8),
    more=st.integers(0, 30),
    seen=st.lists(busy_and_cpu, min_size=1, max_size=60),
)
def test_a_pool_stays_in_its_range_and_keeps_what_runs(
    threshold: float, least: int, more: int, seen: list[tuple[int, int, float]]
) -> None:
    scale, slots = Scale(threshold, 2.0), least
    for now, (running, waiting, cpu) in enumerate(seen):
        running = min(running, slots)
        after = scale.slots(Look(slots, least, least + more, running, running + waiting, cpu), now)
        assert least <= after <= least + more
        assert after >= running
        slots = after


@given(threshold=st.floats(0.05, 1), busy=st.integers(0, 100), slots=st.integers(1, 100))
def test_under_the_same_work_a_pool_comes_to_rest(threshold: float, busy: int, slots: int) -> None:
    """It may double some times or halve some times, but never does one after the other."""
    scale, steps = Scale(threshold, 2.0), []
    for now in range(60):
        running = min(busy, slots)
        after = scale.slots(Look(slots, 1, 100, running, running), now)
        steps += [after > slots] * (after != slots)
        slots = after
    assert len(set(steps)) <= 1


class StubPool:
    """A pool in which some slots cannot be taken away."""

    def __init__(self, slots: int, kept: int = 0) -> None:
        self.num_processes, self.kept, self.maintained = slots, kept, 0
        self.info: dict[str, list[int]] = {"processes": []}

    def grow(self, n: int) -> None:
        self.num_processes += n

    def shrink(self, n: int) -> None:
        idle = self.num_processes - self.kept
        self.num_processes -= min(n, idle)
        if idle < n:
            raise ValueError("Can't shrink pool. All processes busy!")

    def maintain_pool(self) -> None:
        self.maintained += 1


class StubWorker:
    """What the autoscaler uses of a worker; it is its own consumer and its event dispatcher."""

    def __init__(self) -> None:
        config = AgentsConfig(async_worker_pool=PoolSpec(scale_threshold=0.5))
        self.app = SimpleNamespace(hermes=SimpleNamespace(registry=Registry(config)))
        self.blueprint = SimpleNamespace(state=RUN)
        self.consumer = self.event_dispatcher = self
        self.max_concurrency = 0
        self.prefetched: list[int] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def _update_prefetch_count(self, change: int) -> None:
        self.prefetched.append(change)

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))


class Task:
    """A request."""


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Three tasks that run."""
    tasks = [Task() for _ in range(3)]
    for name in ("active_requests", "reserved_requests"):
        monkeypatch.setattr(state, name, set(tasks))
    return tasks


def autoscaler(slots: int, least: int, most: int, kept: int = 0) -> tuple[Any, StubPool, StubWorker]:
    pool, worker = StubPool(slots, kept), StubWorker()
    return ThresholdAutoscaler(pool, most, least, worker=worker), pool, worker


def test_a_step_changes_the_prefetch_and_is_told(tasks: list[Task], caplog: pytest.LogCaptureFixture) -> None:
    scaler, pool, worker = autoscaler(3, 3, 8)
    assert (worker.max_concurrency, scaler.keepalive) == (3, LOOK_EVERY)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            scaler.maybe_scale()
    assert (pool.num_processes, pool.maintained, worker.prefetched) == (6, 1, [3])
    assert caplog.messages == ["pool grew from 3 to 6 slots: 3 busy, CPU 0%"]
    assert worker.events == [("worker-pool-scaled", {"slots": 6, "before": 3, "busy": 3, "cpu": 0.0})]
    assert scaler.info() == {"max": 8, "min": 3, "current": 6, "qty": 3, "threshold": 0.5, "cpu": 0.0}


def test_messages_and_a_worker_that_stops_change_nothing(tasks: list[Task]) -> None:
    scaler, pool, worker = autoscaler(3, 3, 8)
    for _ in range(4):
        scaler.maybe_scale(tasks[0])
    worker.blueprint.state = CLOSE
    for _ in range(4):
        scaler.maybe_scale()
    assert (pool.num_processes, worker.prefetched) == (3, [])


def test_slots_that_cannot_go_yet_go_later(tasks: list[Task]) -> None:
    scaler, pool, worker = autoscaler(8, 1, 8, kept=6)
    assert scaler.update(4) == (4, 1)
    scaler.maybe_scale()
    assert (pool.num_processes, worker.prefetched, pool.maintained) == (6, [-2], 1)
    scaler.maybe_scale()
    assert (worker.prefetched, pool.maintained) == ([-2], 1)
    pool.kept = 0
    scaler.maybe_scale()
    assert (pool.num_processes, worker.prefetched) == (4, [-2, -2])


@pytest.mark.parametrize(
    ("said", "range_"),
    [
        ((8, 3), (8, 3)),
        ((2, None), (2, 2)),
        ((None, 9), (4, 4)),
        ((0, 0), (1, 1)),
        ((None, None), (4, 3)),
    ],
)
def test_a_range_that_cannot_be_is_bent(said: tuple[int | None, int | None], range_: tuple[int, int]) -> None:
    scaler, _, _ = autoscaler(3, 3, 4)
    assert scaler.update(*said) == range_


def test_a_pool_without_slots_would_take_messages_without_end() -> None:
    scaler, pool, worker = autoscaler(0, 0, 0)
    scaler.maybe_scale()
    assert (pool.num_processes, worker.max_concurrency) == (1, 1)


@pytest.mark.parametrize(("answers", "slots"), [(True, 4), (False, 2)])
def test_a_pool_whose_loop_is_blocked_does_not_grow(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch, answers: bool, slots: int
) -> None:
    monkeypatch.setattr(CpuMeter, "read", lambda *_: 0.0)
    pool: Any = AsyncioPool(2, app=SimpleNamespace(steps={"consumer": set()}))
    pool._threads = SimpleNamespace(strays=())
    pool.loop = SimpleNamespace(call_soon_threadsafe=lambda call: call() if answers else None)
    scaler = ThresholdAutoscaler(pool, 4, 2, worker=StubWorker())
    for _ in range(4):
        scaler.maybe_scale()
    assert pool.num_processes == slots
