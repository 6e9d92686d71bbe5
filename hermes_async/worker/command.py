"""How a worker of a lane is started: the `celery worker` command line with the right flags."""

from __future__ import annotations

import sys
from secrets import token_hex

from hermes_async.adapters.celery_queue import queue_name
from hermes_async.domain.task import Lane

APP = "hermes_async.worker.app"


def worker_command(
    lane: Lane, *, concurrency: int, loglevel: str = "INFO", hostname: str | None = None
) -> list[str]:
    """Return the argv of a worker.

    Args:
        lane: which queue it serves, and with which pool.
        concurrency: coroutines at once in the async lane, processes in the process lane.
        loglevel: Celery's, for example `INFO`.
        hostname: the node name; by default one that no other worker has.
    """
    return [
        *(sys.executable, "-m", "celery", "--app", APP, "worker"),
        *("--queues", queue_name(lane)),
        *("--concurrency", str(concurrency)),
        *("--loglevel", loglevel),
        *("--hostname", hostname or f"{lane}-{token_hex(4)}@%h"),
        *("--without-gossip", "--without-mingle"),
    ]
