"""A Hermes on a thread of its own: opened when Redis answers, undisturbed by limits, gone when closed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from hermes_async.bootstrap import Servers
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig
from hermes_async.worker.station import Station
from tests.support.servers import RedisServer, wait_until

REGISTRY = Registry(AgentsConfig())


@pytest.fixture
def station(redis_url: str) -> Iterator[Station]:
    station = Station(REGISTRY, Servers(redis_url, redis_url))
    yield station
    station.close()


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def test_it_calls_coroutines_from_another_thread(station: Station) -> None:
    assert station.call(add, 1, 2) == 3
    assert station.call(station.hermes.store.ping).startswith(("redis", "valkey"))

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        station.call(fail)


def test_a_soft_limit_does_not_disturb_it(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """It strikes in the main thread at any time; what is written must be written."""
    done = threading.Event()

    async def write() -> str:
        await asyncio.to_thread(done.wait, 5)
        return "written"

    start = station.start

    class Struck:
        def __init__(self, future: object) -> None:
            self.future, self.strikes = future, 3

        def done(self) -> bool:
            return self.strikes == 0

        def result(self) -> str:
            if self.strikes:
                self.strikes -= 1
                raise SoftTimeLimitExceeded
            done.set()
            return self.future.result()  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr(station, "start", lambda *args: Struck(start(*args)))
    try:
        assert station.call(write) == "written"
    finally:
        monkeypatch.undo()


def test_closing_cancels_what_runs_and_leaves_nothing(redis_url: str) -> None:
    before = set(threading.enumerate())
    station = Station(REGISTRY, Servers(redis_url, redis_url))
    cancelled = threading.Event()

    async def for_ever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    station.call(add, 1, 2)
    future = station.start(for_ever)
    station.call(add, 1, 2)
    station.close()
    assert cancelled.is_set()
    assert future.cancelled()
    wait_until(lambda: set(threading.enumerate()) == before)  # one of anyio takes a moment to go


def test_it_waits_for_a_redis_that_is_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    station = Station(REGISTRY, Servers(server.url, server.url))
    assert station.call(add, 1, 2) == 3  # whoever needs no Redis does not wait
    server.start()
    try:
        assert station.call(station.hermes.store.ping)
        station.close()
    finally:
        server.kill()


def test_it_closes_without_ever_having_opened(tmp_path: Path) -> None:
    station = Station(REGISTRY, Servers("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0"))
    station.close()
    wait_until(lambda: "hermes-station" not in {thread.name for thread in threading.enumerate()})


def test_a_soft_limit_that_strikes_while_it_begins_waits(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know whether the coroutine has begun."""

    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    begun, start = [], station.start

    def struck(*args: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        begun.append(args)
        return start(*args)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        monkeypatch.setattr(station, "start", struck)
        assert station.call(add, 1, 2) == 3
    finally:
        monkeypatch.undo()
        signal.signal(signal.SIGUSR1, before)
    assert (len(begun), station.interrupted) == (1, True)
