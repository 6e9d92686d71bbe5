"""What is told of the CPU: of threads that ask for it, of loops that do not answer, and of containers."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_async.worker.cpu import CpuMeter, Pulse, cores
from tests.support.servers import PATIENCE, wait_until

linux = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux tells it")


@linux
def test_a_process_that_computes_asks_for_one_core() -> None:
    meter, begun = CpuMeter(2), time.monotonic()
    meter.read([os.getpid()], begun)
    while time.monotonic() < begun + 0.5:
        pass
    assert meter.read([os.getpid()], time.monotonic()) == pytest.approx(0.5, abs=0.2)


@linux
def test_a_process_that_sleeps_asks_for_none() -> None:
    meter, begun = CpuMeter(1), time.monotonic()
    meter.read([os.getpid()], begun)
    time.sleep(0.3)
    assert meter.read([os.getpid()], time.monotonic()) < 0.5


def test_of_a_process_that_is_gone_or_new_nothing_is_known() -> None:
    meter = CpuMeter(1)
    assert meter.read([2**31 - 1], 1.0) == 0
    assert meter.read([os.getpid()], 2.0) == 0
    assert meter.read([os.getpid()], 2.0) == 0  # no time has passed


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_blocked_loop_has_no_pulse(loop: asyncio.AbstractEventLoop) -> None:
    pulse, blocked, go_on = Pulse(), threading.Event(), threading.Event()
    assert pulse.read(loop)
    wait_until(lambda: pulse.read(loop))
    loop.call_soon_threadsafe(lambda: blocked.set() or go_on.wait(PATIENCE))
    blocked.wait()
    pulse.read(loop)
    assert not pulse.read(loop)
    assert not pulse.read(loop)
    go_on.set()
    wait_until(lambda: pulse.read(loop))


@pytest.mark.parametrize(
    ("limit", "most"), [("50000 100000", 0.5), ("max 100000", math.inf), ("nonsense", math.inf)]
)
def test_the_limit_of_a_container_counts(tmp_path: Path, limit: str, most: float) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/old\n0::/pod/this\n")
    (tmp_path / "sys/fs/cgroup/pod/this").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/pod/this/cpu.max").write_text(f"{limit}\n")
    assert cores(tmp_path) == min(most, cores(tmp_path / "none"))


def test_without_a_container_all_cores_count(tmp_path: Path) -> None:
    assert cores(tmp_path) >= 1
