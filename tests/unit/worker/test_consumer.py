"""Whatever thread a task ends on, the broker is asked for more on the consumer's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from hermes_async.worker.consumer import OneThreadConsumer


def test_more_is_fetched_on_the_thread_of_the_consumer_only() -> None:
    later: list[Callable[[], Any]] = []
    asked: list[int] = []
    consumer: Any = OneThreadConsumer.__new__(OneThreadConsumer)
    consumer.hub = SimpleNamespace(call_soon=later.append)
    consumer.app = SimpleNamespace(conf=SimpleNamespace(worker_enable_prefetch_count_reduction=True))
    consumer.pool, consumer.prefetch_multiplier = SimpleNamespace(num_processes=3), 1
    consumer.qos = SimpleNamespace(value=1, set=asked.append, _mutex=nullcontext())
    consumer._maximum_prefetch_restored = False
    consumer._restore_prefetch_count_after_connection_restart("an ack")
    assert asked == []
    later.pop()()
    assert asked == [2]
