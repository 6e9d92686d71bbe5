"""The tiny agents do the one thing that each is for."""

from __future__ import annotations

import time

import anyio
import pytest

from examples.basics import burn, echo, fail, flaky, wait

from .recorder import Recorder

pytestmark = pytest.mark.anyio


async def test_echo() -> None:
    assert await echo.function(Recorder(), "hello") == "hello"


async def test_wait_tells_of_every_tenth_and_does_not_drift() -> None:
    told = Recorder()
    assert 0.1 <= await wait.function(told, 0.1) < 1
    assert list(told.percents()) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


async def test_wait_can_be_cancelled() -> None:
    started = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await wait.function(Recorder(), 60)
    assert scope.cancelled_caught and time.monotonic() - started < 5


async def test_wait_for_no_time() -> None:
    assert await wait.function(Recorder(), 0) < 1


def test_burn_takes_processor_time() -> None:
    told, before = Recorder(), time.thread_time()
    assert burn.function(told, 0.1) > 0
    assert time.thread_time() - before > 0.02
    told.assert_went_to_100()


async def test_flaky_succeeds_after_its_failures() -> None:
    for attempt in (1, 2):
        with pytest.raises(ConnectionError, match=f"attempt {attempt} fails; attempt 3 will not"):
            await flaky.function(Recorder(attempt=attempt), 2)
    assert await flaky.function(Recorder(attempt=3), 2) == "succeeded at attempt 3"


async def test_fail() -> None:
    with pytest.raises(ValueError, match="no such thing"):
        await fail.function(Recorder(), "no such thing")
