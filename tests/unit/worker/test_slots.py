"""Jobs that are aside: their slots go to others, and they get one again, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from hermes_async.worker.pool import AsyncioPool, running_pool
from tests.support.servers import wait_until, wait_until_async
from tests.unit.worker.conftest import Bench, Outcome

BODIES: list[Callable[..., Any]] = []
order: list[str] = []
#: Set by a test, awaited by a body.
gates: dict[str, asyncio.Event] = {}
benches: list[Bench] = []


@pytest.fixture
def one(bench: Bench) -> Iterator[Bench]:
    """A pool with one slot, whose jobs may dispatch into it."""
    order.clear()
    gates.clear()
    bench.pool.shrink(3)
    benches[:] = [bench]
    yield bench
    info = bench.pool.info
    assert info["aside"] == info["running"] == info["waiting"] == info["zombies"] == 0


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


def opened(bench: Bench, name: str) -> None:
    bench.pool.loop.call_soon_threadsafe(gate(name).set)


def body(function: Callable[..., Any]) -> Callable[..., Any]:
    BODIES.append(function)
    return function


def pool() -> AsyncioPool:
    found = running_pool()
    assert found is not None
    return found


@body
async def nested(depth: int) -> int:
    """Wait for another of the same in the same pool."""
    if depth == 0:
        return 0
    async with pool().aside():
        child = benches[0].run(nested, depth - 1)
        await wait_until_async(child.settled)
    assert pool().info["running"] == 1
    return 1 + int(child.value)


@body
async def step_aside(name: str) -> None:
    """Be aside until a gate opens; say what happens."""
    try:
        async with pool().aside():
            order.append(f"{name} aside")
            await gate(name).wait()
        order.append(f"{name} back")
    except (SoftTimeLimitExceeded, asyncio.CancelledError) as error:
        kind = SoftTimeLimitExceeded if isinstance(error, SoftTimeLimitExceeded) else type(error)
        order.append(f"{name} {kind.__name__} of {pool().info['running']}")
        await asyncio.sleep(0.01)
        order.append(f"{name} tidied")
        raise


@body
async def work(name: str) -> None:
    order.append(f"{name} begins")
    await gate(name).wait()


@body
async def branches() -> list[int]:
    """Two branches aside, one after the other back."""
    running = []

    async def branch(name: str) -> None:
        async with pool().aside():
            await gate(name).wait()
        running.append(pool().info["running"])
        order.append(f"{name} back")

    await asyncio.gather(branch("left"), branch("right"))
    return running


@body
async def again_while_coming_back() -> None:
    """A branch that waits for its slot goes on when another one steps aside."""

    async def first() -> None:
        async with pool().aside():
            await gate("first").wait()
        order.append("first goes on")
        gate("second").set()

    async def second() -> None:
        await gate("turn").wait()
        async with pool().aside():
            await gate("second").wait()
        order.append("second back")

    await asyncio.gather(first(), second())


@body
async def leave_a_branch_aside() -> None:
    async def branch() -> None:
        async with pool().aside():
            await gate("branch").wait()
        order.append("branch went on")

    order.append(asyncio.create_task(branch()).get_name())
    await asyncio.sleep(0)


@body
async def stubborn() -> None:
    """Refuse to be cancelled while aside."""
    async with pool().aside():
        order.append("aside")
        while not gate("enough").is_set():
            with suppress(asyncio.CancelledError):
                await gate("enough").wait()
    order.append("went on")


def is_aside(bench: Bench) -> int:
    return int(bench.pool.info["aside"])


def started(bench: Bench, *outcomes: Outcome) -> None:
    wait_until(lambda: all(outcome.pid for outcome in outcomes))


def test_one_slot_is_enough_for_tasks_that_wait_for_tasks(one: Bench) -> None:
    assert one.result(nested, 5).value == "5"


def test_a_returning_job_goes_before_those_that_have_not_begun(one: Bench) -> None:
    first = one.run(step_aside, "first")
    wait_until(lambda: is_aside(one))
    jobs = [one.run(work, name) for name in ("second", "third")]
    started(one, jobs[0])
    opened(one, "first")
    assert not first.settled()
    opened(one, "second")
    wait_until(first.settled)
    opened(one, "third")
    wait_until(jobs[1].settled)
    assert order == ["first aside", "second begins", "first back", "third begins"]


def test_the_slot_is_back_when_the_last_branch_is(one: Bench) -> None:
    outcome = one.run(branches)
    wait_until(lambda: is_aside(one))
    other = one.run(work, "other")
    started(one, other)
    opened(one, "left")
    wait_until(lambda: order[-1:] == ["left back"])  # it works on without a slot
    opened(one, "right")
    assert not outcome.settled()
    opened(one, "other")
    wait_until(outcome.settled)
    assert order == ["other begins", "left back", "right back"]
    assert outcome.value == "[1, 1]"


def test_a_branch_that_waits_for_the_slot_goes_on_when_another_steps_aside(one: Bench) -> None:
    outcome = one.run(again_while_coming_back)
    wait_until(lambda: is_aside(one))
    other = one.run(work, "other")
    started(one, other)
    for name in ("first", "turn"):
        opened(one, name)
    wait_until(lambda: "first goes on" in order)
    assert not outcome.settled()
    opened(one, "other")
    wait_until(outcome.settled)
    assert order[-1] == "second back"


@pytest.mark.parametrize("coming_back", [False, True])
@pytest.mark.parametrize("how", ["terminate", "hard", "soft"])
def test_who_is_cancelled_cleans_up_without_a_slot(one: Bench, how: str, coming_back: bool) -> None:
    limits = {"hard": {"timeout": 1.0}, "soft": {"soft_timeout": 1.0}}.get(how, {})
    outcome = one.run(step_aside, "job", **limits)
    wait_until(lambda: is_aside(one))
    other = one.run(work, "other")
    started(one, other)
    if coming_back:
        opened(one, "job")
    if how == "terminate":
        one.pool.terminate_job(outcome.pid)
    wait_until(lambda: order[-1:] == ["job tidied"])
    assert not other.settled()
    assert order[-2] == f"job {'SoftTimeLimitExceeded' if how == 'soft' else 'CancelledError'} of 2"
    opened(one, "other")
    wait_until(other.settled)
    assert one.result(nested, 1).value == "1"


def test_a_branch_that_outlives_its_job_has_no_slot_to_wait_for(one: Bench) -> None:
    wait_until(one.run(leave_a_branch_aside).settled)
    assert is_aside(one) == 0
    other = one.run(work, "other")
    started(one, other)
    opened(one, "branch")
    wait_until(lambda: "branch went on" in order)
    opened(one, "other")
    wait_until(other.settled)


def test_a_zombie_is_not_aside_and_gets_no_slot(one: Bench) -> None:
    outcome = one.run(stubborn, timeout=0.1)
    wait_until(lambda: one.pool.info["zombies"])
    assert is_aside(one) == 0
    other = one.run(work, "other")
    started(one, other)
    opened(one, "enough")
    wait_until(lambda: order[-1] == "went on")
    wait_until(lambda: not one.pool.info["zombies"])
    assert not other.settled()
    opened(one, "other")
    wait_until(other.settled)
    assert outcome.events == ["accepted", "hard"]


def test_a_warm_stop_waits_for_those_that_are_aside(one: Bench) -> None:
    outcomes = [one.run(nested, 3), one.run(nested, 2)]
    wait_until(lambda: is_aside(one))
    one.pool.close()
    one.pool.stop()
    assert [outcome.value for outcome in outcomes] == ["3", "2"]


def test_a_cold_stop_cancels_those_that_are_aside(one: Bench) -> None:
    outcomes = [one.run(step_aside, "first"), one.run(step_aside, "second")]
    wait_until(lambda: is_aside(one) == 2)
    begin = time.monotonic()
    one.pool.terminate()
    assert time.monotonic() - begin < 2
    assert [line for line in order if line.endswith("tidied")] == ["first tidied", "second tidied"]
    assert [outcome.events for outcome in outcomes] == [["accepted"]] * 2


def test_outside_a_task_there_is_no_slot_to_give_back(one: Bench) -> None:
    async def come_and_go() -> int:
        async with one.pool.aside():
            return is_aside(one)

    assert asyncio.run(come_and_go()) == 0
