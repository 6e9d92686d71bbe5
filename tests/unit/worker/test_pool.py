"""The asyncio pool inside this process, driven through the interface Celery uses."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import current_task, signals
from celery.exceptions import Reject, Retry

from hermes_async.worker import pool as pool_module
from hermes_async.worker import threads
from hermes_async.worker.pool import running_pool
from tests.support.servers import wait_until
from tests.unit.worker.conftest import Bench

BODIES: list[Callable[..., Any]] = []
seen: list[Any] = []
barriers: dict[int, threading.Barrier] = {}
mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


def body(function: Callable[..., Any]) -> Callable[..., Any]:
    """A body for a task; every test has its own app."""
    BODIES.append(function)
    return function


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@body
async def add(a: int, b: int) -> int:
    await asyncio.sleep(0.01)
    return a + b


@body
async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


@body
async def nap(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except BaseException as error:
        seen.append(error)
        raise
    return "rested"


@body
async def ask_and_nap(aside: float, seconds: float) -> str:
    pool = running_pool()
    assert pool is not None
    async with pool.aside(halted=True):
        await asyncio.sleep(aside)
    return await nap(seconds)


@body
async def tidy(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)
        return "tidied"
    return "rested"


@body
async def family() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(nap(30))
        group.create_task(nap(30))


@body
async def stubborn() -> str:
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            seen.append("refused")
    return "late"


@body
async def leave() -> None:
    raise SystemExit(3)


@body
async def interrupt() -> None:
    await asyncio.sleep(0)
    raise KeyboardInterrupt


@body
async def leave_in_stray_child() -> None:
    """The child's end is nobody's: it reaches the loop itself."""
    asyncio.create_task(leave())  # noqa: RUF006
    await asyncio.sleep(0.05)


@body
async def leave_in_child() -> None:
    await asyncio.gather(leave())


@body
async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


@body
async def who() -> list[str]:
    def here() -> str:
        return str(current_task.request.id)

    async def child() -> str:
        await asyncio.sleep(0.01)
        return here()

    return [here(), await child(), *await asyncio.gather(child(), child()), await asyncio.to_thread(here)]


@body
def who_in_def() -> list[str]:
    return [str(current_task.request.id), threading.current_thread().name]


@body
async def colour(value: str) -> str:
    """Set a variable of the context, and see it in every kind of child."""
    before = mark.get()
    mark.set(value)

    async def child() -> str:
        await asyncio.sleep(0.01)
        inherited = mark.get()
        mark.set("of a child")
        return inherited

    async with asyncio.TaskGroup() as group:
        children = [group.create_task(child()) for _ in range(2)]
    values = {task.result() for task in children} | set(await asyncio.gather(child(), child()))
    return " ".join([before, mark.get(), await asyncio.to_thread(mark.get), *values])


@body
def sleep_in_thread(seconds: float) -> None:
    time.sleep(seconds)


@body
def meet(many: int) -> None:
    """Wait for so many others in their threads."""
    barriers.setdefault(many, threading.Barrier(many)).wait(10)


@body
def mark_in_thread(value: str) -> None:
    seen.append(value)


@body
async def refuse() -> None:
    raise Reject("not mine", requeue=True)


@body
async def again(self: Any) -> None:
    raise self.retry(countdown=0)


again.bind = True  # type: ignore[attr-defined]


@body
async def leave_a_child_behind() -> None:
    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("child ended")

    seen.append(asyncio.create_task(child()))
    await asyncio.sleep(0)


async def numbers(name: str) -> AsyncIterator[int]:
    try:
        for number in range(1_000):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0.01)
        seen.append(f"{name} closed")


@body
async def stop_in_the_middle() -> None:
    async for number in numbers("stopped"):
        if number == 1:
            break


@body
async def sleep_in_the_middle(seconds: float) -> None:
    async for _ in numbers("cancelled"):
        await asyncio.sleep(seconds)


@body
async def keep_one() -> None:
    kept.append(numbers("kept"))
    await anext(kept[-1])


kept: list[AsyncIterator[int]] = []


@body
async def use_a_resource() -> None:
    async def close() -> None:
        await asyncio.sleep(0.01)
        seen.append("closed")

    pool = running_pool()
    assert pool is not None
    pool.on_loop_stop(close)


def test_a_coroutine_returns_its_value(bench: Bench) -> None:
    outcome = bench.result(add, 1, 2)
    assert outcome.value == "3"  # the tracer hands a representation back, as with every pool
    assert outcome.events == ["accepted", "succeeded"]


def test_an_exception_is_a_failure(bench: Bench) -> None:
    outcome = bench.result(fail)
    assert outcome.events == ["accepted", "failed"]
    assert isinstance(outcome.error, ValueError)


def test_celery_signals_stay_celerys_own() -> None:
    order: list[str] = []
    names = ("task_prerun", "task_success", "task_failure", "task_postrun")
    receivers = {name: lambda name=name, **_: order.append(name) for name in names}
    for name in names:
        getattr(signals, name).connect(receivers[name], weak=False)
    try:
        bench = Bench(1, BODIES)  # tracers look for receivers when they are built
        bench.result(fail)
        bench.result(add, 1, 1)
        bench.pool.stop()
    finally:
        for name in names:
            getattr(signals, name).disconnect(receivers[name])
    failure, success = order[:3], order[3:]
    assert failure == ["task_prerun", "task_failure", "task_postrun"]
    assert success == ["task_prerun", "task_success", "task_postrun"]


def test_many_wait_together(bench: Bench) -> None:
    bench.pool.grow(296)
    begin = time.monotonic()
    outcomes = [bench.run(nap, 0.3) for _ in range(300)]
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    assert time.monotonic() - begin < 3


def test_a_burst_wakes_the_loop_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.pool.loop.call_soon_threadsafe((gate := threading.Event()).wait)
    wake, wakeups = bench.pool.loop.call_soon_threadsafe, list[str]()

    def counted(callback: Callable[..., Any], *args: Any) -> Any:
        wakeups.append(callback.__qualname__)
        return wake(callback, *args)

    monkeypatch.setattr(bench.pool.loop, "call_soon_threadsafe", counted)
    outcomes = [bench.run(add, 1, 1) for _ in range(50)]
    gate.set()
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    assert wakeups.count("AsyncioPool._take") == 1


def test_slots_are_kept_grown_and_shrunk(bench: Bench) -> None:
    outcomes = [bench.run(nap, 0.8) for _ in range(8)]
    wait_until(lambda: bench.pool.info["waiting"] == 4 and outcomes[3].pid)
    assert bench.pool.info["running"] == 4
    assert sum(bool(outcome.pid) for outcome in outcomes) == 4
    bench.pool.grow(2)
    wait_until(lambda: outcomes[5].pid)
    bench.pool.shrink(5)
    assert bench.pool.num_processes == 1
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))


def test_the_soft_limit_is_thrown_at_the_await(bench: Bench) -> None:
    outcome = bench.result(nap, 30, soft_timeout=0.1)
    assert outcome.events == ["accepted", "soft", "failed"]
    assert type(outcome.error) is SoftTimeLimitExceeded
    assert outcome.error.args == (0.1,)
    assert isinstance(seen[0], SoftTimeLimitExceeded)


def test_a_task_may_tidy_up_at_the_soft_limit(bench: Bench) -> None:
    assert bench.result(tidy, 30, soft_timeout=0.1).value == "'tidied'"


def test_the_soft_limit_takes_the_children_along(bench: Bench) -> None:
    outcome = bench.result(family, soft_timeout=0.1)
    assert type(outcome.error) is SoftTimeLimitExceeded
    assert [type(error) for error in seen] == [asyncio.CancelledError] * 2


def test_the_hard_limit_abandons(bench: Bench) -> None:
    outcome = bench.result(nap, 30, timeout=0.1)
    wait_until(lambda: seen)
    assert outcome.events == ["accepted", "hard"]
    assert isinstance(seen[0], asyncio.CancelledError)
    assert bench.result(add, 1, 1).value == "2"


def test_a_limit_stands_still_while_its_task_is_halted(bench: Bench) -> None:
    assert bench.result(ask_and_nap, 0.6, 0.0, timeout=0.4).value == "'rested'"
    assert bench.result(ask_and_nap, 0.2, 30, timeout=0.4).events == ["accepted", "hard"]
    assert bench.result(ask_and_nap, 0.2, 30, soft_timeout=0.4).events[:2] == ["accepted", "soft"]


def test_the_workers_limits_hold_for_every_task() -> None:
    bench = Bench(1, BODIES, soft_timeout=0.1)
    try:
        assert bench.result(nap, 30).events[1] == "soft"
    finally:
        bench.pool.stop()


def test_a_coroutine_that_refuses_to_end_is_counted_and_loses_its_slot(bench: Bench) -> None:
    bench.pool.shrink(3)
    outcome = bench.result(stubborn, timeout=0.1)
    assert bench.result(add, 1, 1).value == "2"
    assert bench.pool.info["zombies"] == 1
    wait_until(lambda: bench.pool.info["zombies"] == 0)
    assert outcome.events == ["accepted", "hard"]
    assert len(seen) > 2


def test_terminate_cancels_and_drops_the_result(bench: Bench) -> None:
    outcome = bench.run(nap, 30)
    wait_until(lambda: outcome.pid)
    bench.pool.terminate_job(outcome.pid, 15)
    wait_until(lambda: bench.pool.info["running"] == 0)
    assert outcome.events == ["accepted"]
    assert isinstance(seen[0], asyncio.CancelledError)


def test_an_exit_loses_the_job_but_not_the_loop(bench: Bench) -> None:
    for function, kind in ((leave, SystemExit), (leave_in_child, SystemExit), (interrupt, KeyboardInterrupt)):
        outcome = bench.result(function)
        assert outcome.events[-1] == "lost"
        assert isinstance(outcome.error, kind)
    bystander = bench.run(nap, 0.3)
    assert bench.result(leave_in_stray_child).events[-1] == "succeeded"
    wait_until(bystander.settled)
    assert bystander.events[-1] == "succeeded"
    assert bench.result(add, 1, 1).value == "2"


def test_a_coroutine_that_cancels_itself_has_failed(bench: Bench) -> None:
    outcome = bench.result(cancel_itself)
    assert outcome.events[-1] == "failed"
    assert isinstance(outcome.error, RuntimeError)


@pytest.mark.parametrize(("function", "kind"), [(refuse, Reject), (again, Retry)])
def test_celerys_control_exceptions_pass(bench: Bench, function: Callable[..., Any], kind: type) -> None:
    assert isinstance(bench.result(function).error, kind)


def test_the_current_task_is_right_in_children_and_threads(bench: Bench) -> None:
    outcomes = [bench.run(who) for _ in range(4)]
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    values = [eval(outcome.value) for outcome in outcomes]
    assert all(len(set(ids)) == 1 for ids in values)
    assert len({ids[0] for ids in values}) == 4


def test_a_def_runs_in_a_thread_and_knows_its_task(bench: Bench) -> None:
    task_id, thread = eval(bench.result(who_in_def).value)
    assert task_id != "None"
    assert thread.startswith("celery-def")


def test_an_abandoned_def_is_counted_until_its_thread_ends(bench: Bench) -> None:
    outcome = bench.result(sleep_in_thread, 0.5, timeout=0.1)
    assert outcome.events == ["accepted", "hard"]
    wait_until(lambda: bench.pool.info["zombies"] == 1)
    wait_until(lambda: bench.pool.info["zombies"] == 0)


def test_every_slot_has_a_thread(bench: Bench) -> None:
    bench.pool.grow(56)
    outcomes = [bench.run(meet, 60) for _ in range(60)]
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    assert {outcome.events[-1] for outcome in outcomes} == {"succeeded"}


def test_a_def_that_was_cancelled_before_it_had_a_thread_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MOST", 1)
    bench = Bench(2, BODIES)
    first, second = bench.run(sleep_in_thread, 0.3), bench.run(mark_in_thread, "begun")
    wait_until(lambda: second.pid)
    bench.pool.terminate_job(second.pid)
    wait_until(first.settled)
    bench.pool.stop()
    assert seen == []


def test_a_cold_stop_leaves_busy_threads_behind(bench: Bench) -> None:
    outcome = bench.run(sleep_in_thread, 4)
    wait_until(lambda: outcome.pid)
    begin = time.monotonic()
    bench.pool.terminate()
    assert time.monotonic() - begin < 3
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("celery")])


def test_context_does_not_leak_from_job_to_job(bench: Bench) -> None:
    bench.pool.shrink(3)
    outcomes = [bench.run(colour, value) for value in ("red", "blue")]
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    assert [outcome.value for outcome in outcomes] == ["'clean red red red'", "'clean blue blue blue'"]


def test_flush_forgets_what_has_not_begun(bench: Bench) -> None:
    bench.pool.shrink(3)
    running, waiting = bench.run(nap, 0.2), bench.run(nap, 0.2)
    wait_until(lambda: running.pid)
    bench.pool.flush()
    wait_until(running.settled)
    bench.pool.stop()
    assert waiting.events == []


def test_a_warm_stop_drains(bench: Bench) -> None:
    outcomes = [bench.run(nap, 0.2) for _ in range(6)]
    bench.pool.close()
    bench.pool.stop()
    assert [outcome.events[-1] for outcome in outcomes] == ["succeeded"] * 6


def test_a_cold_stop_cancels_and_reports_nothing(bench: Bench) -> None:
    outcomes = [bench.run(nap, 30) for _ in range(6)]
    wait_until(lambda: outcomes[3].pid)
    begin = time.monotonic()
    bench.pool.terminate()
    assert time.monotonic() - begin < 2
    assert {event for outcome in outcomes for event in outcome.events} == {"accepted"}


def test_a_cold_stop_does_not_wait_for_a_blocked_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "GRACE", 0.1)

    async def block() -> None:
        time.sleep(2.5)

    bench = Bench(1, BODIES)
    bench.add(block)
    outcome = bench.run(block)
    wait_until(lambda: outcome.pid)
    begin = time.monotonic()
    bench.pool.terminate()
    assert time.monotonic() - begin < 2
    wait_until(bench.pool.loop.is_closed)  # it ends by itself, if the task ever does


def test_what_tasks_opened_is_closed_while_the_loop_runs(bench: Bench) -> None:
    wait_until(bench.run(use_a_resource).settled)
    wait_until(bench.run(leave_a_child_behind).settled)
    bench.pool.stop()
    assert seen[1:] == ["closed", "child ended"]
    assert seen[0].cancelled()


def test_asynchronous_generators_are_closed(bench: Bench) -> None:
    wait_until(bench.run(stop_in_the_middle).settled)
    wait_until(lambda: seen == ["stopped closed"])
    bench.run(sleep_in_the_middle, 30, timeout=0.1)
    wait_until(lambda: seen[1:] == ["cancelled closed"])
    wait_until(bench.run(keep_one).settled)
    bench.pool.stop()
    assert seen[2:] == ["kept closed"]
    kept.clear()


def life_of_a_pool() -> tuple[int, int]:
    """What is open when it is over: file descriptors, threads."""
    bench = Bench(4, BODIES)
    outcomes = [bench.run(*call) for call in ((add, 1, 1), (sleep_in_thread, 0.01), (nap, 30), (fail,))]
    wait_until(lambda: all(outcome.pid for outcome in outcomes))
    bench.pool.terminate()
    assert asyncio.all_tasks(bench.pool.loop) == set()
    return psutil.Process().num_fds(), threading.active_count()


def test_nothing_is_left_open() -> None:
    life_of_a_pool()  # the first one imports and caches
    assert life_of_a_pool() == life_of_a_pool()


def test_process_signals_are_sent_on_the_loop() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def receiver(**_: Any) -> None:
        loops.append(asyncio.get_running_loop())

    signals.worker_process_init.connect(receiver)
    signals.worker_process_shutdown.connect(receiver)
    try:
        bench = Bench(1, BODIES)
        bench.pool.stop()
    finally:
        signals.worker_process_init.disconnect(receiver)
        signals.worker_process_shutdown.disconnect(receiver)
    assert loops == [bench.pool.loop] * 2


def test_a_task_registered_late_runs_too(bench: Bench) -> None:
    async def late() -> str:
        await asyncio.sleep(0)
        return "late"

    bench.add(late)
    assert bench.result(late).value == "'late'"


def test_a_wrapped_coroutine_function_is_awaited(bench: Bench) -> None:
    def wrapped() -> Any:
        return add(2, 2)

    bench.add(wrapped)
    assert bench.result(wrapped).value == "4"


def test_autoretry_sees_the_exception_of_the_coroutine(bench: Bench) -> None:
    bench.add(fail, name="fail_again", autoretry_for=(ValueError,))

    def fail_again() -> None: ...

    assert isinstance(bench.result(fail_again).error, Retry)
