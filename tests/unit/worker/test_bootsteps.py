"""Leases are renewed and lost ones noticed, and nobody is judged right after an outage."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from celery.worker import state

from hermes_async.adapters.memory import MemoryStore
from hermes_async.core.janitor import Swept
from hermes_async.core.outage import Outage
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.worker import bootsteps
from hermes_async.worker.bootsteps import (
    LEAD_FOR,
    Caretaker,
    Ending,
    LeaseKeeper,
    _hand_back,
    running,
)
from hermes_async.worker.station import Station
from tests.support.agents import nap
from tests.support.bench import Bench, MovableClock
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
LEASE = 15.0


class Request:
    """Celery's, as far as it matters here."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


class Round:
    """A lease keeper, and what it has stopped."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.stopped: list[str] = []
        self.killed: list[str] = []
        self.interrupted: dict[str, Any] = {}
        self.keeper = LeaseKeeper(bench.hermes, "w1", LEASE, self._end, self.interrupted)

    def _end(self, requests: list[Any], signal: str) -> None:
        ends = {"SIGUSR1": self.stopped, "SIGKILL": self.killed}
        ends[signal] += [request.id for request in requests]

    async def accepted(self, *, claimed_by: str = "") -> tuple[Task, Request]:
        """A task whose message a worker has, and may have claimed."""
        task = await self.bench.dispatch(nap, 1.0)
        if claimed_by:
            found = await self.bench.store.claim(task.id, claimed_by, LEASE)
            assert found is not None
            task = found
        request = Request(task.id)
        state.active_requests.add(request)
        return task, request

    async def twice(self) -> list[str]:
        for _ in range(2):
            await self.keeper.renew()
        return self.stopped


@pytest.fixture(autouse=True)
def _no_requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(state, "active_requests", WeakSet())
    yield


@pytest.fixture
async def round_() -> Round:
    return Round(Bench(nap))


async def test_leases_last_while_their_tasks_run(round_: Round) -> None:
    _, request = await round_.accepted(claimed_by="w1")
    for _ in range(3):
        round_.bench.clock.ahead += LEASE * 0.9
        await round_.keeper.renew()
    assert await round_.bench.store.lapsed() == []
    state.active_requests.discard(request)
    round_.bench.clock.ahead += LEASE * 1.1
    await round_.keeper.renew()
    assert await round_.bench.store.lapsed() == [request.id]
    assert round_.stopped == []


async def test_what_is_accepted_but_not_yet_claimed_is_let_alone(round_: Round) -> None:
    task, _request = await round_.accepted()
    assert await round_.twice() == []
    assert await round_.bench.store.claim(task.id, "w1", LEASE)
    assert await round_.twice() == []


async def test_the_next_attempt_of_a_task_is_not_taken_for_the_lost_one(round_: Round) -> None:
    task, first = await round_.accepted(claimed_by="w1")
    await round_.keeper.renew()
    assert await round_.bench.store.append(make_event(task, "task.retrying"))
    state.active_requests.discard(first)
    second = Request(task.id)
    state.active_requests.add(second)
    assert await round_.twice() == []


async def test_what_another_worker_has_is_stopped_here(round_: Round) -> None:
    """Also when it was lost before the first renewal; only here, for the other one has it rightly."""
    _, request = await round_.accepted(claimed_by="w2")
    await round_.keeper.renew()
    assert round_.stopped == []  # it may have ended in this very moment
    await round_.keeper.renew()
    assert round_.stopped == [request.id]
    assert round_.bench.queue._on_revoke == []


async def test_what_ended_elsewhere_is_stopped(round_: Round) -> None:
    task, request = await round_.accepted(claimed_by="w1")
    await round_.keeper.renew()
    assert await round_.bench.store.append(make_event(task, "task.cancelled"))
    assert await round_.twice() == [request.id]


async def test_what_ended_here_by_itself_is_let_alone(round_: Round) -> None:
    """A connection to the broker that is away keeps its request; its process may be at the next task."""
    for end in ("task.completed", "task.failed"):
        task, _request = await round_.accepted(claimed_by="w1")
        await round_.keeper.renew()
        assert await round_.bench.store.append(make_event(task, end))
    assert await round_.twice() == []


async def test_a_cancel_that_was_not_heard_is_seen(round_: Round) -> None:
    task, request = await round_.accepted(claimed_by="w1")
    await round_.bench.store.append(make_event(task, "task.cancel_requested"))
    assert await round_.twice() == [request.id]  # once: it is busy with cleaning up


async def test_a_cancel_that_takes_too_long_is_settled_and_the_task_killed(
    round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, request = await round_.accepted(claimed_by="w1")
    await round_.bench.store.append(make_event(task, "task.cancel_requested"))
    await round_.keeper.renew()
    assert round_.killed == []
    monkeypatch.setattr(bootsteps, "CANCEL_GRACE", 0.0)
    await round_.keeper.renew()
    assert round_.killed == [request.id]
    assert (await round_.bench.record(task)).status is TaskStatus.CANCELLED
    assert await round_.bench.store.append(make_event(task, "task.completed")) == 0


async def test_a_cancelled_task_whose_end_cannot_be_written_is_killed_as_others_are(
    round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = [await round_.accepted(claimed_by="w1") for _ in range(2)]  # whose requests are held weakly
    bad, good = (task for task, _ in accepted)
    for task in (bad, good):
        await round_.bench.store.append(make_event(task, "task.cancel_requested"))
    append = round_.bench.store.append

    async def append_some(event: AnyEvent, **more: Any) -> int:
        if event.task_id == bad.id:
            raise StoreDamaged("damaged")
        return await append(event, **more)

    monkeypatch.setattr(round_.bench.store, "append", append_some)
    await round_.keeper.renew()
    monkeypatch.setattr(bootsteps, "CANCEL_GRACE", 0.0)
    await round_.keeper.renew()
    assert sorted(round_.killed) == sorted([bad.id, good.id])
    assert (await round_.bench.record(good)).status is TaskStatus.CANCELLED


async def test_who_cleans_up_is_not_forgotten_until_it_has_ended(
    round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task, request), (slow, stubborn) = [await round_.accepted(claimed_by="w1") for _ in range(2)]
    for each in (request, stubborn):  # as a cancel does: Celery forgets whom it has told
        await round_.bench.store.cancel(each.id, force=False, cascade=True)
        state.active_requests.discard(each)
        round_.interrupted[each.id] = each
    for _ in range(3):
        round_.bench.clock.ahead += LEASE * 0.9
        await round_.keeper.renew()
    assert await round_.bench.store.lapsed() == []
    assert await round_.bench.store.append(make_event(task, "task.cancelled"))
    await round_.keeper.renew()
    assert (list(round_.interrupted), round_.stopped) == ([stubborn.id], [])
    monkeypatch.setattr(bootsteps, "CANCEL_GRACE", 0.0)
    for _ in range(2):
        await round_.keeper.renew()
    assert (round_.killed, round_.interrupted) == ([stubborn.id], {})
    assert (await round_.bench.record(slow)).status is TaskStatus.CANCELLED


async def test_requests_may_come_and_go_while_they_are_read() -> None:
    ended = threading.Event()
    kept = [Request(str(number)) for number in range(2_000)]

    def churn() -> None:
        while not ended.is_set():
            for request in kept:
                state.active_requests.add(request)
                state.active_requests.discard(request)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(2_000):
            running()
    finally:
        ended.set()
        thread.join()


# -- the others ------------------------------------------------------------------------------------------
class FakeJanitor:
    def __init__(self) -> None:
        self.judged: list[bool] = []
        self.away = False

    async def sweep(self, *, lost: bool = True) -> Swept:
        if self.away:
            raise StoreUnavailable("away")
        self.judged.append(lost)
        return Swept()


async def test_after_an_outage_workers_may_renew_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(bootsteps, "time", SimpleNamespace(monotonic=lambda: now))
    janitor = FakeJanitor()
    caretaker = Caretaker(hermes_with(janitor), "w1", LEASE)
    await caretaker.sweep()
    janitor.away = True
    with pytest.raises(StoreUnavailable):
        await caretaker.sweep()
    janitor.away = False
    for seconds in (0.0, LEASE * 0.9, LEASE * 0.2):
        now += seconds
        await caretaker.sweep()
    assert janitor.judged == [True, False, False, True]


def hermes_with(janitor: FakeJanitor, store: MemoryStore | None = None) -> Any:
    return SimpleNamespace(janitor=janitor, store=store or MemoryStore())


async def test_one_janitor_sweeps_and_another_takes_over() -> None:
    clock, janitors = MovableClock(), [FakeJanitor(), FakeJanitor()]
    store = MemoryStore(now=clock)
    first, second = [Caretaker(hermes_with(janitors[n], store), f"w{n}", LEASE) for n in range(2)]
    for _ in range(3):
        await first.sweep()
        await second.sweep()
    assert [len(janitor.judged) for janitor in janitors] == [3, 0]
    assert (await store.traffic()).leader == "w0"
    clock.ahead += LEAD_FOR + 0.1
    await second.sweep()
    await first.sweep()
    assert [len(janitor.judged) for janitor in janitors] == [3, 1]


async def test_a_side_job_goes_on_and_tells_of_an_outage_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "hermes.worker")
    faults: list[Exception | None] = [StoreUnavailable("away"), StoreUnavailable("away"), KeyError("x"), None]
    done = asyncio.Event()

    async def job() -> None:
        if not faults:
            done.set()
            return
        fault = faults.pop(0)
        if fault:
            raise fault

    station: Any = SimpleNamespace(_outage=Outage(logging.getLogger("hermes.worker"), "side jobs"))
    task = asyncio.create_task(Station.forever(station, job, 0.001))
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    assert [record.message for record in caplog.records] == [
        "side jobs cannot go on yet: away",
        "a side job of the worker failed; it goes on",
    ]


async def test_a_stopping_worker_hands_back_what_is_its_own(round_: Round) -> None:
    mine, _a = await round_.accepted(claimed_by="w1")
    unwanted, _b = await round_.accepted(claimed_by="w1")
    await round_.bench.store.append(make_event(unwanted, "task.cancel_requested"))
    foreign, _c = await round_.accepted(claimed_by="w2")

    async def opened() -> Any:
        return round_.bench.hermes

    await _hand_back(SimpleNamespace(opened=opened), "w1")  # type: ignore[arg-type]
    records = [await round_.bench.record(task) for task in (mine, unwanted, foreign)]
    assert [task.status for task in records] == [
        TaskStatus.QUEUED,
        TaskStatus.CANCELLED,
        TaskStatus.RUNNING,
    ]
    assert records[0].losses == 0


def test_the_side_jobs_end_last() -> None:
    parent = SimpleNamespace(steps=["pool", "consumer"])
    step = Ending(parent)
    step.include(parent)
    assert parent.steps == [step, "pool", "consumer"]
