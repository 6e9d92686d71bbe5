"""The broker's side of jobs that are aside: their messages must not keep others from being delivered."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

__all__ = ["Credit"]


class Credit(bootsteps.StartStopStep):  # type: ignore[misc]
    """Makes pool and consumer acquainted: the jobs aside are added to the prefetch count.

    RabbitMQ's quorum queues ignore it: there the count of a consumer that runs cannot be changed.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, consumer: Any) -> bool:
        """Only for a pool with jobs aside; an app may be served by others, too."""
        return hasattr(consumer.pool, "on_aside")

    def start(self, consumer: Any) -> None:
        """Begin, with every connection anew."""
        consumer.pool.consumer = consumer
        consumer.pool.on_aside = _Count(consumer).change


class _Count:
    """The prefetch count of one connection."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self._qos = consumer, consumer.qos
        self._set = self._qos.callback
        self._qos.callback = self._set_with_aside
        self._changing = False

    def change(self) -> None:
        """The number of jobs aside is another now; callable on any thread."""
        if not self._changing:
            self._changing = True
            self._consumer.call_soon(self._update)

    def _update(self) -> None:
        """At once: the consumer's loop would look at its count only after the next message."""
        self._changing = False
        if self._consumer.qos is self._qos and self._consumer.connection:
            self._qos.prev = None  # what is set is not its value
            self._qos.update()

    def _set_with_aside(self, prefetch_count: int) -> None:
        aside = self._consumer.pool.info["aside"] if prefetch_count else 0  # 0: no limit
        self._set(prefetch_count=prefetch_count + aside)
