"""Whom a shrinking pool of processes may end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from hermes_async.worker.prefork import AsideLine, Children

pytestmark = pytest.mark.anyio


def test_only_a_child_that_is_up_and_has_no_task_is_idle() -> None:
    idle, busy, leaving, starting = (
        SimpleNamespace(inqW_fd=fd, pid=fd, _controlled_termination=fd == 2) for fd in range(4)
    )
    children: Any = Children.__new__(Children)
    children._pool = [busy, starting, leaving, idle]
    children._all_inqueues = {idle.inqW_fd, busy.inqW_fd, leaving.inqW_fd}
    # It was written to the child, which has not said yet that it runs it: it has no pid.
    children._cache = {1: SimpleNamespace(_write_to=busy, worker_pids=list)}
    assert list(children._iterinactive()) == [idle]
    assert children.busy == 1


@pytest.fixture
def line() -> Iterator[AsideLine]:
    line = AsideLine()
    yield line
    line.close()


async def test_a_process_is_aside_from_its_first_branch_to_its_last(line: AsideLine) -> None:
    mine = {os.getpid()}

    def heard() -> int:
        line.hear()
        return len(line.of(mine))

    assert heard() == 0
    async with line.step_out():
        assert heard() == 1
        async with line.step_out():
            assert heard() == 1
        assert heard() == 1
    assert heard() == 0


async def test_many_words_are_heard_at_once(line: AsideLine) -> None:
    for _ in range(50):
        with suppress(KeyError):
            async with line.step_out():
                raise KeyError
    async with line.step_out():
        line.hear()
        assert line.of({os.getpid()}) == {os.getpid()}


async def test_a_process_that_has_died_is_not_aside(line: AsideLine) -> None:
    async with line.step_out():
        line.hear()
        assert line.of({1}) == set()
        assert line.of({os.getpid()}) == set()  # another one may have its number by now


async def test_a_process_says_whether_its_limits_are_halted(line: AsideLine) -> None:
    said: list[bool] = []

    def hear() -> list[bool]:
        said.clear()
        line.hear(lambda pid, halted: said.append(halted))
        return said

    async with line.step_out(halted=False):
        assert hear() == [False]
        async with line.step_out(halted=True):
            assert hear() == [True]
        assert hear() == [False]
    assert hear() == [False]
    assert hear() == []


class Hub:
    """Celery's event loop, as far as limits care."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, function: Any, *args: Any) -> Any:
        self.timers.append((seconds, function.__name__))
        return SimpleNamespace(cancel=self.timers.clear)


@pytest.mark.parametrize(
    ("age", "soft", "hard", "then"),
    [
        (1.0, 5.0, 15.0, (4.0, "_on_soft_timeout")),
        (1.0, None, 15.0, (14.0, "_on_hard_timeout")),
        (6.0, 5.0, 15.0, (9.0, "_on_hard_timeout")),
        (1.0, None, None, None),
    ],
)
def test_what_is_left_of_a_limit_counts_after_the_halt(
    age: float, soft: float | None, hard: float | None, then: tuple[float, str] | None
) -> None:
    children: Any = Children.__new__(Children)
    job = SimpleNamespace(
        _worker_pid=7, _job=1, _time_accepted=time.monotonic() - age, _soft_timeout=soft, _timeout=hard
    )
    children._cache, children._hub, children._tref_for_id = {1: job}, Hub(), {}
    children._discard_tref = lambda id: children._hub.timers.clear()
    children.halt(8, halted=True)  # nobody's
    children.halt(7, halted=False)  # it was not halted
    assert children._hub.timers == []
    children.halt(7, halted=True)
    job.halted_at -= 100.0  # so long ago
    job._time_accepted -= 100.0
    children.halt(7, halted=False)
    assert [name for _, name in children._hub.timers] == ([then[1]] if then else [])
    assert then is None or children._hub.timers[0][0] == pytest.approx(then[0], abs=0.5)
