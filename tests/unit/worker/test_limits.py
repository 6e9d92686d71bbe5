"""Time limits of coroutines that run side by side, wherever in the body they strike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from tests.support.servers import wait_until
from tests.unit.worker.conftest import Bench

BODIES: list[Callable[..., Any]] = []
seen: list[str] = []
LONG = 30.0


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def body(function: Callable[..., Any]) -> Callable[..., Any]:
    BODIES.append(function)
    return function


async def witness(name: str) -> None:
    """Sleep, and say what woke it."""
    try:
        await asyncio.sleep(LONG)
    except BaseException as error:
        limit = isinstance(error, SoftTimeLimitExceeded)
        seen.append(f"{name}: {'soft limit' if limit else type(error).__name__}")
        raise


@body
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@body
async def in_timeout() -> None:
    """An `asyncio.timeout` takes nobody else's cancellation for its own."""
    async with asyncio.timeout(LONG):
        await witness("body")


@body
async def in_nested_groups() -> None:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(witness("outer"))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(witness("inner"))
            await witness("body")


@body
async def in_gather() -> None:
    await asyncio.gather(witness("first"), witness("second"))


@body
async def in_shield() -> None:
    await asyncio.shield(asyncio.create_task(asyncio.sleep(0.5)))


@body
async def in_exit_stack() -> None:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.sleep, 0.01)
        stack.callback(seen.append, "closed")
        await witness("body")


@body
async def own_timeout() -> str:
    """Its own timeout is an ordinary TimeoutError, though there is a limit as well."""
    try:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(LONG)
    except TimeoutError:
        await asyncio.sleep(0.01)
        task = asyncio.current_task()
        return f"own, cancelling {task.cancelling() if task else None}"
    return "none"


@body
async def work_on() -> str:
    """Swallow the soft limit and go on: nothing of the cancellation is left."""
    try:
        await asyncio.sleep(LONG)
    except SoftTimeLimitExceeded:
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            task = group.create_task(nap(0.05))
    current = asyncio.current_task()
    return f"{task.result()}, cancelling {current.cancelling() if current else None}"


WHERE: dict[Callable[..., Any], tuple[set[str], set[str]]] = {
    in_timeout: ({"body: soft limit"}, {"body: CancelledError"}),
    in_nested_groups: (
        {"outer: CancelledError", "inner: CancelledError", "body: soft limit"},
        {"outer: CancelledError", "inner: CancelledError", "body: CancelledError"},
    ),
    in_gather: (
        {"first: CancelledError", "second: CancelledError"},
        {"first: CancelledError", "second: CancelledError"},
    ),
    in_shield: (set(), set()),
    in_exit_stack: ({"body: soft limit", "closed"}, {"body: CancelledError", "closed"}),
}


@pytest.mark.parametrize("function", WHERE)
def test_the_soft_limit_strikes_anywhere(bench: Bench, function: Callable[..., Any]) -> None:
    outcome = bench.result(function, soft_timeout=0.1)
    assert outcome.events == ["accepted", "soft", "failed"]
    assert type(outcome.error) is SoftTimeLimitExceeded
    assert set(seen) == WHERE[function][0]


@pytest.mark.parametrize("function", WHERE)
def test_the_hard_limit_strikes_anywhere(bench: Bench, function: Callable[..., Any]) -> None:
    outcome = bench.result(function, timeout=0.1)
    wait_until(lambda: bench.pool.info["running"] == 0)
    assert outcome.events == ["accepted", "hard"]
    assert set(seen) == WHERE[function][1]


def test_each_has_limits_of_its_own(bench: Bench) -> None:
    bench.pool.grow(60)
    soft = [bench.run(nap, LONG, soft_timeout=0.1 + number / 100) for number in range(20)]
    hard = [bench.run(nap, LONG, soft_timeout=LONG, timeout=0.1 + number / 100) for number in range(20)]
    free = [bench.run(nap, 0.5, soft_timeout=LONG, timeout=LONG) for _ in range(20)]
    wait_until(lambda: all(outcome.settled() for outcome in (*soft, *hard, *free)))
    assert {tuple(outcome.events) for outcome in soft} == {("accepted", "soft", "failed")}
    assert [outcome.error.args for outcome in soft] == [(0.1 + number / 100,) for number in range(20)]
    assert {tuple(outcome.events) for outcome in hard} == {("accepted", "hard")}
    assert {tuple(outcome.events) for outcome in free} == {("accepted", "succeeded")}


def test_a_timeout_of_the_bodys_own_is_not_the_limit(bench: Bench) -> None:
    outcome = bench.result(own_timeout, soft_timeout=LONG, timeout=LONG)
    assert outcome.value == "'own, cancelling 0'"


def test_a_body_that_goes_on_after_the_soft_limit_is_as_good_as_new(bench: Bench) -> None:
    outcome = bench.result(work_on, soft_timeout=0.1, timeout=LONG)
    assert outcome.events == ["accepted", "soft", "succeeded"]
    assert outcome.value == "'0.05, cancelling 0'"
