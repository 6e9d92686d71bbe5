"""The command line of a worker."""

from __future__ import annotations

import sys

from hermes_async.domain.task import Lane
from hermes_async.worker.command import worker_command


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
