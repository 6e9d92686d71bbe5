"""When a worker process must be replaced, and what becomes of the tasks in it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from hermes_async.worker import recycle, tracer, watchdog
from hermes_async.worker.recycle import EXIT_CODE, Recycling, Rules
from tests.support.field import NAP, Field
from tests.support.servers import Process, wait_until
from tests.unit.worker.conftest import Bench

BODIES: list[Callable[..., Any]] = []
HOG, STUBBORN = "tests.support.tasks.hog", "tests.support.tasks.stubborn"


def body(function: Callable[..., Any]) -> Callable[..., Any]:
    BODIES.append(function)
    return function


@body
async def block(seconds: float) -> None:
    time.sleep(seconds)


@body
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@body
async def stubborn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)


@body
def stubborn_thread(seconds: float) -> None:
    time.sleep(seconds)


def job(*, limit: float | None = None, age: float = 0.0, to_be_killed: bool = False) -> Any:
    return SimpleNamespace(name="n", task_id="t", limit=limit, age=age, to_be_killed=to_be_killed)


@pytest.mark.parametrize(
    ("job", "seconds", "spoiled"),
    [
        (job(limit=10, age=14.9), 14.0, False),
        (job(limit=10, age=15.1), 14.0, True),
        (job(limit=10, age=100.0), 4.9, False),
        (job(limit=None, age=100.0), 50.0, False),
        (job(limit=10, age=1.0, to_be_killed=True), 4.9, False),
        (job(limit=None, age=1.0, to_be_killed=True), 5.0, True),
    ],
)
def test_who_blocks_the_loop_beyond_his_limit_spoils_the_process(
    job: Any, seconds: float, spoiled: bool
) -> None:
    assert bool(Rules(grace=5.0).blocked(job, seconds)) is spoiled


@pytest.mark.parametrize(
    ("count", "to_be_killed", "spoiled"), [(10, False, False), (11, False, True), (1, True, True)]
)
def test_too_many_zombies_spoil_it_or_one_that_somebody_wants_dead(
    count: int, to_be_killed: bool, spoiled: bool
) -> None:
    assert bool(Rules(max_zombies=10).zombies(count, job(to_be_killed=to_be_killed))) is spoiled


# -- inside this process ---------------------------------------------------------------------------------
class Heard:
    """What a pool says of its end."""

    def __init__(self, bench: Bench) -> None:
        self.calls: list[dict[str, bool]] = []
        self.threads: list[str] = []
        bench.pool.on_recycle(self)

    def __call__(self, jobs: Any) -> None:
        self.calls.append(dict(jobs))
        self.threads.append(threading.current_thread().name)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "THRESHOLD", 0.05)


@pytest.fixture
def heard(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr(bench.pool, "rules", Rules(max_zombies=2, grace=0.1))
    heard = Heard(bench)
    yield heard
    assert len(heard.calls) <= 1
    assert set(heard.threads) <= {"celery-recycle"}
    with suppress(RuntimeError):  # it is closed
        free = threading.Event()
        bench.pool.loop.call_soon_threadsafe(free.set)
        assert free.wait(10)
        wait_until(lambda: bench.pool.info["zombies"] == 0)


def test_the_culprit_is_out_of_time_though_the_loop_cannot_tell(
    bench: Bench, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    bench.pool.shrink(2)
    other = bench.run(nap, 30)
    culprit = bench.run(block, 1.5, timeout=0.2)
    waiting = bench.run(nap, 30)
    wait_until(lambda: heard.calls)
    assert heard.calls == [{culprit.task_id: True, other.task_id: False}]  # what has not begun is as it was
    assert culprit.events == ["accepted", "hard"]
    assert f"is to be replaced: task block[{culprit.task_id}] blocks the event loop beyond its" in caplog.text
    begin = time.monotonic()
    bench.pool.terminate()
    assert time.monotonic() - begin < 0.5  # nobody waits for a loop that is known to be blocked
    wait_until(bench.pool.loop.is_closed)
    assert other.events == ["accepted"]
    assert waiting.events == []


def test_a_warm_stop_does_not_wait_for_who_blocks_for_ever(bench: Bench, heard: Heard) -> None:
    culprit = bench.run(block, 3, timeout=0.2)
    wait_until(lambda: culprit.pid)
    begin = time.monotonic()
    bench.pool.stop()
    assert time.monotonic() - begin < 2.5
    assert heard.calls == [{culprit.task_id: True}]
    wait_until(bench.pool.loop.is_closed)


def test_who_is_to_be_killed_and_blocks_is_the_end(bench: Bench, heard: Heard) -> None:
    culprit = bench.run(block, 1.0)
    wait_until(lambda: culprit.pid)
    bench.pool.terminate_job(culprit.pid, signal.SIGKILL)
    wait_until(lambda: heard.calls)
    assert heard.calls == [{culprit.task_id: True}]
    assert culprit.events == ["accepted"]  # Celery has announced it already


def test_one_zombie_more_than_there_may_be(bench: Bench, heard: Heard) -> None:
    other = bench.run(nap, 30)
    zombies = [bench.run(function, 1.5) for function in (stubborn, stubborn_thread)]
    wait_until(lambda: all(outcome.pid for outcome in zombies))
    for outcome in zombies:
        bench.pool.terminate_job(outcome.pid, signal.SIGUSR1)
    wait_until(lambda: bench.pool.info["zombies"] == 2)
    last = bench.run(stubborn, 1.5, timeout=0.1)
    wait_until(lambda: heard.calls)
    assert {task_id for task_id, to_blame in heard.calls[0].items() if to_blame} == {
        zombies[0].task_id,  # the thread is nobody's any more: its task has ended
        last.task_id,
    }
    assert not heard.calls[0][other.task_id]


def test_a_process_that_stops_need_not_be_replaced(bench: Bench, heard: Heard) -> None:
    zombie, other = bench.run(stubborn, 1.5), bench.run(nap, 1.0)
    wait_until(lambda: zombie.pid and other.pid)
    bench.pool.terminate_job(zombie.pid, signal.SIGKILL)
    bench.pool.stop()
    assert other.events == ["accepted", "succeeded"]
    assert heard.calls == []


@pytest.mark.parametrize("function", [stubborn, stubborn_thread])
def test_one_that_is_to_be_killed_and_does_not_end(
    bench: Bench, heard: Heard, function: Callable[..., Any]
) -> None:
    outcome = bench.run(function, 1.0)
    wait_until(lambda: outcome.pid)
    bench.pool.terminate_job(outcome.pid, signal.SIGKILL)
    wait_until(lambda: heard.calls)
    assert heard.calls[0] in ({outcome.task_id: True}, {})


def test_one_that_ends_in_time_is_let_go(bench: Bench, heard: Heard) -> None:
    outcomes = [bench.run(nap, 30), bench.run(stubborn_thread, 0.1)]
    wait_until(lambda: all(outcome.pid for outcome in outcomes))
    for outcome in outcomes:
        bench.pool.terminate_job(outcome.pid, signal.SIGKILL)
    wait_until(lambda: bench.pool.info["zombies"] == bench.pool.info["running"] == 0)
    time.sleep(2 * tracer.INSIST_EVERY)
    assert heard.calls == []


def test_whoever_asks_says_why_and_once_is_enough(
    bench: Bench, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = [bench.run(nap, 30) for _ in range(2)]
    wait_until(lambda: all(outcome.pid for outcome in outcomes))
    for why in ("enough", "more than enough"):
        bench.pool.recycle(why, [outcomes[0].task_id])
    wait_until(lambda: heard.calls)
    assert heard.calls == [{outcomes[0].task_id: True, outcomes[1].task_id: False}]
    assert caplog.messages == ["This worker process is to be replaced: enough"]


class Consumer:
    """Celery's, as far as it matters here; what is due at once has no order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.due: list[Callable[[], Any]] = []
        self.controller = SimpleNamespace(exitcode=None)
        self.task_consumer = SimpleNamespace(cancel=lambda: self.done.append("stopped consuming"))

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        self.due.append(partial(function, *args))

    def tick(self) -> bool:
        due, self.due = self.due, []
        for call in reversed(due):
            call()
        return self.controller.exitcode is not None


def test_the_worker_stops_consuming_tells_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle.state, "should_terminate", None)
    consumer, told = Consumer(), threading.Event()

    def tell(_: Any) -> None:
        consumer.call_soon(lambda: consumer.done.append(f"acked {consumer.controller.exitcode}"))
        told.set()

    recycling = Recycling(leave=print)
    recycling.listen(lambda _: 1 / 0)
    recycling.listen(tell)
    recycling.begin("enough", [], [], consumer)
    assert told.wait(5)
    wait_until(consumer.tick)
    assert set(consumer.done) == {"stopped consuming", "acked None"}
    assert (consumer.controller.exitcode, recycle.state.should_terminate) == (EXIT_CODE, EXIT_CODE)


def test_nothing_begins_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle, "PATIENCE", 1.0)
    told, codes = list[Any](), list[int]()
    monkeypatch.setattr(bench.pool, "_recycling", Recycling(leave=codes.append))
    monkeypatch.setattr(bench.pool, "consumer", Consumer())
    bench.pool.on_recycle(told.append)
    running = bench.run(nap, 0.2)
    wait_until(lambda: running.pid)
    bench.pool.recycle("enough")
    late = bench.run(nap, 0.0)
    wait_until(running.settled)
    assert told == [[(running.task_id, False)]]
    assert (late.events, bench.pool.info["waiting"]) == ([], 1)
    wait_until(lambda: codes == [EXIT_CODE])


def test_a_process_that_cannot_end_in_order_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle, "PATIENCE", 0.1)
    codes: list[int] = []
    hung, recycling = threading.Event(), Recycling(leave=codes.append)
    recycling.listen(lambda _: hung.wait(10))
    recycling.begin("enough", [], [], Consumer())
    wait_until(lambda: codes)
    hung.set()
    assert codes == [EXIT_CODE]


# -- in a worker -----------------------------------------------------------------------------------------
def replaced(field: Field, first: Process, spoil: Callable[[], set[str]]) -> str:
    """Spoil a worker while another task runs there; a second worker runs that at once, and nothing else."""
    innocent = field.send(NAP, 2)
    wait_until(lambda: field.starts()[innocent])
    culprits = spoil()
    wait_until(lambda: not first.alive, 20)
    assert first.wait() == EXIT_CODE
    ended = time.time()
    second = field.ready(4, pool=HASTY, lease=60.0)
    field.wait_for("end", 1)
    restart = [note for note in field.notes("start") if note.pid == second.pid]
    assert [note.id for note in restart] == [innocent]
    assert restart[0].at - ended < 15  # not when a lease lapses
    field.wait_until_empty()
    assert all(field.starts()[culprit] == 1 for culprit in culprits)
    return first.log


HASTY = "tests.support.pools:Hasty"


@pytest.fixture
def first(field: Field) -> Process:
    return field.ready(4, pool=HASTY, lease=60.0)


@pytest.mark.acceptance
def test_a_worker_with_a_hog_is_replaced(field: Field, first: Process) -> None:
    def spoil() -> set[str]:
        return {field.send(HOG, 60, time_limit=1)}

    log = replaced(field, first, spoil)
    assert "by task tests.support.tasks.hog[" in log
    assert "blocks the event loop beyond its limit of 1 s" in log
    assert "Hard time limit (1s) exceeded for tests.support.tasks.hog" in log
    assert "Traceback" not in log


@pytest.mark.acceptance
def test_a_worker_with_too_many_zombies_is_replaced(field: Field, first: Process) -> None:
    def spoil() -> set[str]:
        return {field.send(STUBBORN, 60, time_limit=0.5) for _ in range(3)}

    log = replaced(field, first, spoil)
    assert "3 tasks do not end although they were cancelled" in log


@pytest.mark.acceptance
@pytest.mark.parametrize("name", [STUBBORN, HOG])
def test_a_worker_in_which_a_task_cannot_be_killed_is_replaced(
    field: Field, first: Process, name: str
) -> None:
    def spoil() -> set[str]:
        culprit = field.send(name, 60)
        wait_until(lambda: field.starts()[culprit])
        with field.app.connection() as connection:  # another test may have cut a pooled one
            field.app.control.revoke(culprit, connection=connection, terminate=True, signal="SIGKILL")
        return {culprit}

    assert "is to be killed, and" in replaced(field, first, spoil)
