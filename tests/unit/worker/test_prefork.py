"""Whom a shrinking pool of processes may end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from hermes_async.worker.prefork import AsideLine, Children

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
        return line.count(mine)

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
        assert line.count({os.getpid()}) == 1


async def test_a_process_that_has_died_is_not_aside(line: AsideLine) -> None:
    async with line.step_out():
        line.hear()
        assert line.count({1}) == 0
        assert line.count({os.getpid()}) == 0  # another one may have its number by now
