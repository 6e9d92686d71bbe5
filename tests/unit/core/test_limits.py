"""The time limits of an attempt: which one strikes, when, and what is said of it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from hermes_async.core.limits import Limits
from hermes_async.domain.failure import Reason
from tests.support.values import make_task

pytestmark = pytest.mark.anyio


def limits(**options: Any) -> Limits:
    return Limits(make_task(options={"timeout": None, **options}))


async def struck(limits: Limits, within: float = 5.0, **how: Any) -> float:
    """How many seconds after which a limit has struck."""
    strike, began = asyncio.Event(), time.monotonic()
    limits.watch(strike.set, **how)
    async with asyncio.timeout(within):
        await strike.wait()
    return time.monotonic() - began


async def never_struck(limits: Limits, within: float, **how: Any) -> None:
    with pytest.raises(TimeoutError):
        await struck(limits, within, **how)
    assert limits.reason is None
    limits.stop()


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"timeout": 0.1}, Reason.TIMEOUT, "no result within 0.1 s"),
        ({"idle_timeout": 0.1}, Reason.IDLE_TIMEOUT, "no sign of life for 0.1 s"),
        ({"timeout": 9.0, "idle_timeout": 0.1}, Reason.IDLE_TIMEOUT, "no sign of life for 0.1 s"),
        ({"timeout": 0.1, "idle_timeout": 9.0, "total_timeout": 9.0}, Reason.TIMEOUT, "no result"),
    ],
)
async def test_the_first_limit_strikes_and_says_which_it_is(
    options: dict[str, Any], reason: Reason, words: str
) -> None:
    made = limits(**options)
    assert await struck(made) >= 0.09
    assert made.reason is reason
    assert words in made.told()


async def test_the_total_time_begins_with_the_dispatch() -> None:
    task = make_task(options={"total_timeout": 10.0}, created_at=1000.0, started_at=1009.9)
    made = Limits(task)
    assert await struck(made) < 5.0
    assert made.reason is Reason.TOTAL_TIMEOUT


async def test_the_seconds_of_a_budget_begin_with_the_first_attempt() -> None:
    options = {"timeout": None, "limits": {"seconds": 10.0}}
    first = Limits(make_task(options=options, created_at=1.0, started_at=1000.0, began_at=1000.0))
    await never_struck(first, 0.1)
    later = Limits(make_task(options=options, created_at=1.0, started_at=1009.9, began_at=1000.0))
    assert await struck(later) < 5.0
    assert later.reason is Reason.BUDGET_EXCEEDED


async def test_without_limits_nothing_strikes() -> None:
    await never_struck(limits(), 0.1)


async def test_a_limit_that_somebody_else_keeps_does_not_strike() -> None:
    await never_struck(limits(timeout=0.05), 0.2, without=Reason.TIMEOUT)


async def test_signs_of_life_from_a_thread_keep_an_attempt_alive() -> None:
    made = limits(idle_timeout=0.3)

    def work() -> None:
        for _ in range(8):
            time.sleep(0.1)
            made.sign()

    thread = threading.Thread(target=work)
    thread.start()
    assert await struck(made) >= 1.0
    thread.join()


async def test_who_waits_for_its_children_may_be_silent() -> None:
    made = limits(idle_timeout=0.1)
    made.pause(True)
    strike = asyncio.Event()
    made.watch(strike.set)
    await asyncio.sleep(0.4)
    assert not strike.is_set()
    made.pause(False)
    async with asyncio.timeout(5.0):
        await strike.wait()
    assert made.reason is Reason.IDLE_TIMEOUT


async def test_after_its_end_nothing_strikes() -> None:
    made, strike = limits(timeout=0.05), asyncio.Event()
    made.watch(strike.set)
    made.stop()
    await asyncio.sleep(0.15)
    assert not strike.is_set()


def test_what_was_stopped_without_a_limit_has_words_too() -> None:
    assert limits().told() == "stopped"
