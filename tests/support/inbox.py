"""Messages in and out of a broker, as any kombu user sends and receives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.message import Message

QUEUE = Queue("jobs", Exchange(""), routing_key="jobs")
Connect = Callable[..., Connection]


class Inbox:
    """A consumer that keeps what it receives."""

    def __init__(
        self,
        connection: Connection,
        *queues: Queue,
        prefetch: int = 0,
        no_ack: bool = False,
    ) -> None:
        self.connection = connection
        self.messages: list[Message] = []
        self.consumer = Consumer(
            connection, queues or [QUEUE], on_message=self.messages.append, no_ack=no_ack
        )
        if prefetch:
            self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    def drain(self, count: int, timeout: float = 5.0) -> list[Any]:
        """Payloads, as soon as there are so many messages."""
        deadline = time.monotonic() + timeout
        while len(self.messages) < count and time.monotonic() < deadline:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=0.1)
        return [message.payload for message in self.messages]


def publish(connection: Connection, *bodies: Any, queue: Queue = QUEUE, **options: Any) -> None:
    """Publish to a queue, in the middle of the priorities."""
    producer = Producer(connection)
    for body in bodies:
        producer.publish(body, routing_key=queue.name, declare=[queue], **{"priority": 5, **options})
