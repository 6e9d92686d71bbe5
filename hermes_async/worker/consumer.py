"""Celery's consumer, which talks to the broker on one thread only, and lets no question be lost."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery.worker.consumer import Consumer
from redis.exceptions import ResponseError

from hermes_async.adapters.cures import cure
from hermes_async.worker.bootsteps import release

__all__ = ["OneThreadConsumer"]

logger = logging.getLogger("hermes.worker")

#: Seconds until a broker is asked again that has refused a worker: its password, or its virtual host.
REFUSED_AGAIN: Final = 5.0
#: The same when it has let the worker in, and refuses what that asks for: it may soon be the master again.
REFUSED_FOR_NOW: Final = 1.0


class OneThreadConsumer(Consumer):  # type: ignore[misc]
    """After a reconnect Celery fetches one more message for every task that ends, on the thread where it did.

    On the thread of the async pool that is a question to RabbitMQ over a connection which the main thread
    reads: the answer never comes, and the event loop waits for it for ever.
    """

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Wait a little before a broker is asked again that has refused us, which Celery would do at once."""
        super().on_connection_error_before_connected(exc)
        time.sleep(REFUSED_AGAIN)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say why a Redis that is there refuses to work; Celery would ask it again at once, and for ever."""
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, ResponseError):
            logger.error("the broker refuses to work (%s)%s", exc, cure("", str(exc), ""))
            time.sleep(REFUSED_FOR_NOW)

    def _restore_prefetch_count_after_connection_restart(self, *args: Any) -> None:
        self.call_soon(super()._restore_prefetch_count_after_connection_restart, *args)

    def cancel_active_requests(self) -> None:
        """End what runs, as a worker that is to stop at once does first."""
        release(self.app.hermes)
        super().cancel_active_requests()
