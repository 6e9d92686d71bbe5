"""Who blocks the event loop is named, with the place; others are not."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import signals

from hermes_async.worker import watchdog
from tests.support.servers import wait_until
from tests.unit.worker.conftest import Bench

BODIES: list[Callable[..., Any]] = []


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(watchdog, "THRESHOLD", 0.1)
    caplog.set_level(logging.WARNING)


def body(function: Callable[..., Any]) -> Callable[..., Any]:
    BODIES.append(function)
    return function


@body
async def block(seconds: float) -> None:
    await asyncio.sleep(0)
    time.sleep(seconds)


@body
async def block_in_a_child(seconds: float) -> None:
    await asyncio.gather(asyncio.sleep(5), block(seconds))


@body
async def block_in_a_callback(seconds: float) -> None:
    asyncio.get_running_loop().call_soon(time.sleep, seconds)
    await asyncio.sleep(0.01)


@body
async def block_in_a_library(seconds: float) -> None:
    threading.Event().wait(seconds)


@body
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@body
async def many_short_steps(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
        await asyncio.sleep(0)


def warnings(bench: Bench, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said until the loop was free again."""
    wait_until(lambda: "free again" in caplog.text)
    return caplog.messages


def line_of(function: Callable[..., Any], offset: int) -> str:
    place = f"{__file__}:{function.__code__.co_firstlineno + offset} {function.__code__.co_qualname}"
    return re.escape(place)


@pytest.mark.parametrize("function", [block, block_in_a_child])
def test_the_task_and_the_place_are_named(
    bench: Bench, caplog: pytest.LogCaptureFixture, function: Callable[..., Any]
) -> None:
    outcome = bench.run(function, 1.0)
    *blocked, free = warnings(bench, caplog)
    who = rf"task {function.__name__}\[{outcome.task_id}\], at {line_of(block, 3)}"
    for text in blocked:
        assert re.fullmatch(rf"The event loop is blocked for \d\.\d s by {who}", text)
    assert 1 <= len(blocked) <= 4  # after 0.1, 0.2, 0.4, 0.8 s
    again = rf"The event loop is free again: task {function.__name__}\[{outcome.task_id}\] has blocked it for"
    assert re.fullmatch(rf"{again} [0-9]\.\d s", free)


def test_a_callback_of_a_task_is_the_tasks(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    outcome = bench.run(block_in_a_callback, 0.4)
    assert f"by task block_in_a_callback[{outcome.task_id}], at " in warnings(bench, caplog)[0]


def test_the_place_is_in_nobodys_library(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.run(block_in_a_library, 0.4)
    assert re.search(rf"at {line_of(block_in_a_library, 2)}$", warnings(bench, caplog)[0])


def test_what_blocks_beside_a_body_is_named_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver of a signal runs in the greenlet of the tracer, whose stack is its own."""

    def receiver(**_: Any) -> None:
        time.sleep(0.4)

    signals.task_prerun.connect(receiver)
    try:
        bench.add(nap, name="late")  # its tracer is built now

        def late() -> None: ...

        outcome = bench.run(late, 0)
        text = warnings(bench, caplog)[0]
    finally:
        signals.task_prerun.disconnect(receiver)
    assert re.search(rf"by task late\[{outcome.task_id}\], at {line_of(receiver, 1)}", text)


def test_what_is_no_task_blocks_as_well(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.pool.loop.call_soon_threadsafe(time.sleep, 0.4)
    assert "by something that is no task, at " in warnings(bench, caplog)[0]


def test_a_loop_that_is_only_busy_is_not_blocked(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "THRESHOLD", 0.3)
    outcomes = [bench.run(many_short_steps, 1.0), *(bench.run(nap, 0.3) for _ in range(3))]
    wait_until(lambda: all(outcome.settled() for outcome in outcomes))
    assert caplog.messages == []


def test_a_loop_that_waits_for_work_is_not_blocked(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was stopped for a while, and the watchdog is the first to go on."""
    monkeypatch.setattr(bench.pool._watchdog, "_answer", lambda: None)
    time.sleep(0.5)
    assert caplog.messages == []
