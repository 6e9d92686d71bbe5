"""Plain Celery, set up as fast as its documentation allows: what every figure is compared with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from celery import Celery

from benchmarks.stamps import stamp

#: What makes it fast; `bin/bench --stock` leaves it out.
FAST: Mapping[str, Any] = {
    "task_serializer": "json",
    "task_ignore_result": True,
    "result_backend_thread_safe": True,  # else each thread or greenlet makes a backend of its own
    "result_expires": 300,
    "worker_prefetch_multiplier": 64,
    "broker_transport_options": {
        "max_connections": 4_000,  # else acks of gevent fail at ten
        "priority_steps": [0],  # one list to pop from instead of four
    },
}
#: The options of its workers that go with it.
FAST_WORKER = ("--without-gossip", "--without-mingle", "--without-heartbeat")

app = Celery("plain")
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


def use(environ: Mapping[str, str]) -> None:
    """Set up the app; broker and results have a database each, hermes_async has database 0."""
    url = environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
    app.conf.update(broker_url=f"{url}/1", result_backend=f"{url}/2")
    if "BENCH_STOCK" not in environ:
        app.conf.update(FAST)


use(os.environ)


def _noop() -> None:
    """Do nothing."""


def _mark(number: int) -> None:
    """Stamp the moment, and nothing else."""
    stamp(number, time.monotonic())


def _linger(number: int, seconds: float) -> None:
    """Stamp the moment, then sleep: the stamp tells that it runs."""
    stamp(number, time.monotonic())
    time.sleep(seconds)


def _nap(number: int, seconds: float) -> None:
    """Sleep, then stamp when that began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    stamp(number, began)


noop: Any = app.task(_noop, name="plain.noop")
#: The no-op whose end the caller waits for.
answered: Any = app.task(_noop, name="plain.answered", ignore_result=False)
mark: Any = app.task(_mark, name="plain.mark")
linger: Any = app.task(_linger, name="plain.linger")
nap: Any = app.task(_nap, name="plain.nap")


def dispatch_each(task: Any, inputs: Iterable[tuple[Any, ...]]) -> None:
    """Dispatch one after the other, as everybody does."""
    for arguments in inputs:
        task.apply_async(arguments)


def dispatch_many(task: Any, inputs: Iterable[tuple[Any, ...]]) -> None:
    """Dispatch a batch in the fastest way that Celery has: one producer, its messages sent together."""
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        for arguments in inputs:
            task.apply_async(arguments, producer=producer)
