"""How a worker of a lane is started: the `celery worker` command line with the right flags."""

from __future__ import annotations

import math
import sys
from secrets import token_hex

from hermes_async.adapters.celery_queue import queue_name
from hermes_async.domain.agent import NAMESPACE, PoolSpec
from hermes_async.domain.task import Lane

APP = "hermes_async.worker.app"


def slots(lane: Lane, spec: PoolSpec) -> tuple[int, int]:
    """Return how many slots a worker of the lane has at least and at most.

    Those of the process lane are `min_workers` to `max_workers` processes. Those of the async lane are
    coroutines, `slots_per_worker` at most, and shrink in the same proportion.
    """
    least, most = spec.min_workers, spec.max_workers or spec.min_workers
    if lane is Lane.PROCESS:
        return least, most
    return math.ceil(spec.slots_per_worker * least / most), spec.slots_per_worker


def worker_command(
    lane: Lane,
    *,
    concurrency: int,
    up_to: int | None = None,
    loglevel: str = "INFO",
    hostname: str | None = None,
    namespace: str = NAMESPACE,
) -> list[str]:
    """Return the argv of a worker.

    Args:
        lane: which queue it serves, and with which pool.
        concurrency: its slots: coroutines at once in the async lane, processes in the process lane.
        up_to: to how many slots it may grow; by default it stays as it is.
        loglevel: Celery's, for example `INFO`.
        hostname: the node name; by default one that no other worker has.
        namespace: begins the names of the queues.
    """
    grows = up_to is not None and up_to > concurrency
    return [
        *(sys.executable, "-m", "celery", "--app", APP, "worker"),
        *("--queues", queue_name(lane, namespace)),
        *(("--autoscale", f"{up_to},{concurrency}") if grows else ("--concurrency", str(concurrency))),
        *("--loglevel", loglevel),
        *("--hostname", hostname or f"{lane}-{token_hex(4)}@%h"),
        *("--without-gossip", "--without-mingle"),
    ]
