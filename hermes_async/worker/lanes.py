"""A worker serves one lane: its queue, its pool, its size; anything that does not fit together is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from celery import signals
from click.core import ParameterSource

from hermes_async.adapters.celery_queue import queue_name
from hermes_async.domain.agent import NAMESPACE, PoolSpec
from hermes_async.domain.task import Lane
from hermes_async.worker.pool import AsyncioPool
from hermes_async.worker.prefork import PreforkPool

POOLS: dict[Lane, type] = {Lane.ASYNC: AsyncioPool, Lane.PROCESS: PreforkPool}


class Refused(SystemExit):
    """Ends the worker before it takes a task; Celery swallows any other exception of a signal handler."""

    def __init__(self, why: str) -> None:
        super().__init__(f"hermes-async: {why}")


def listen(spec: PoolSpec, namespace: str) -> None:
    """Fit every worker that this process starts to the lane that its command line means."""

    def check(**_: Any) -> None:
        """Before Celery itself complains, in its own way, of a queue that there is not."""
        _lane(_said(), namespace)

    def fit(sender: Any, **_: Any) -> None:
        said = _said()
        lane = _lane(said, namespace)
        queue = queue_name(lane, namespace)
        sender.pool_cls = POOLS[lane]
        sender.app.amqp.queues.select([queue])
        sender.app.conf.task_default_queue = queue
        if not said.get("concurrency"):
            sender.concurrency = spec.slots_per_worker if lane is Lane.ASYNC else spec.min_workers

    signals.celeryd_init.connect(check, weak=False)
    signals.worker_init.connect(fit, weak=False)


def _lane(said: Mapping[str, Any], namespace: str) -> Lane:
    return lane_of(said.get("queues"), said.get("pool"), namespace)


def _said() -> Mapping[str, Any]:
    """Return the options of the `celery worker` command line that somebody wrote there."""
    context = click.get_current_context(silent=True)
    if context is None:
        return {}
    written = ParameterSource.COMMANDLINE
    return {
        name: value for name, value in context.params.items() if context.get_parameter_source(name) is written
    }


def lane_of(queues: Any, pool: Any, namespace: str = NAMESPACE) -> Lane:
    """Return the lane that `--queues` and `--pool` mean; without either, the async lane.

    Raises:
        Refused: they contradict each other, or the pool is one that loses tasks.
    """
    names = [] if not queues else queues.split(",") if isinstance(queues, str) else list(queues)
    lanes = {queue_name(lane, namespace): lane for lane in Lane}
    if len(names) > 1 or not set(names) <= set(lanes):
        raise Refused(f"a worker serves one of the queues {' and '.join(lanes)}, not {', '.join(names)}")
    by_queue = lanes[names[0]] if names else None
    by_pool = _lane_of_pool(pool)
    if by_queue and by_pool and by_queue is not by_pool:
        raise Refused(f"the queue {names[0]} is not served by that pool; leave --pool out")
    return by_queue or by_pool or Lane.ASYNC


def lane_served(worker: Any) -> Lane:
    """Return the lane of a worker that has been fitted."""
    return next(lane for lane, cls in POOLS.items() if issubclass(worker.pool_cls, cls))


def _lane_of_pool(pool: Any) -> Lane | None:
    if pool is None:
        return None
    for lane, cls in POOLS.items():
        if isinstance(pool, type) and (issubclass(pool, cls) or issubclass(cls, pool)):
            return lane
    name = getattr(pool, "__module__", str(pool)).rpartition(".")[2]
    raise Refused(
        f"the {name} pool ignores time limits or loses killed tasks; leave --pool out for the async lane, "
        "or use --pool prefork for the process lane"
    )
