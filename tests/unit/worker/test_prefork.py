"""Whom a shrinking pool of processes may end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hermes_async.worker.prefork import Children


def test_only_a_child_that_is_up_and_has_no_task_is_idle() -> None:
    idle, busy, starting = (SimpleNamespace(inqW_fd=fd, pid=fd) for fd in range(3))
    children: Any = Children.__new__(Children)
    children._pool = [busy, starting, idle]
    children._all_inqueues = {idle.inqW_fd, busy.inqW_fd}
    # It was written to the child, which has not said yet that it runs it: it has no pid.
    children._cache = {1: SimpleNamespace(_write_to=busy, worker_pids=list)}
    assert list(children._iterinactive()) == [idle]
    assert children.busy == 1
