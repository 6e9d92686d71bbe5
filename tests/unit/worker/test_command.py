"""The command line of a worker."""

from __future__ import annotations

import sys

import pytest

from hermes_async.domain.agent import PoolSpec
from hermes_async.domain.task import Lane
from hermes_async.worker.command import slots, worker_command


def test_a_worker_is_a_plain_celery_worker() -> None:
    command = worker_command(Lane.PROCESS, concurrency=3, loglevel="DEBUG", hostname="me@here")
    assert command[:3] == [sys.executable, "-m", "celery"]
    assert " ".join(command[3:]) == (
        "--app hermes_async.worker.app worker --queues hermes.process --concurrency 3 --loglevel DEBUG "
        "--hostname me@here --without-gossip --without-mingle"
    )


def test_no_two_workers_have_the_same_name() -> None:
    first, second = (worker_command(Lane.ASYNC, concurrency=1) for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("up_to", "said"), [(None, "--concurrency 3"), (3, "--concurrency 3"), (8, "--autoscale 8,3")]
)
def test_a_pool_that_may_grow_has_an_autoscaler(up_to: int | None, said: str) -> None:
    command = worker_command(Lane.PROCESS, concurrency=3, up_to=up_to)
    assert f" {said} " in " ".join(command)


@pytest.mark.parametrize(
    ("spec", "processes", "coroutines"),
    [
        (PoolSpec(), (2, 2), (100, 100)),
        (PoolSpec(min_workers=2, max_workers=10), (2, 10), (20, 100)),
        (PoolSpec(min_workers=1, max_workers=3, slots_per_worker=10), (1, 3), (4, 10)),
        (PoolSpec(min_workers=1, max_workers=3, slots_per_worker=1), (1, 3), (1, 1)),
    ],
)
def test_both_lanes_grow_in_the_same_proportion(
    spec: PoolSpec, processes: tuple[int, int], coroutines: tuple[int, int]
) -> None:
    assert (slots(Lane.PROCESS, spec), slots(Lane.ASYNC, spec)) == (processes, coroutines)
