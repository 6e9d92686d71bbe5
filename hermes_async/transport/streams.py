"""The kombu transport `redisstream://`: Redis Streams with leases, priorities and a dead-letter stream."""

from __future__ import annotations

from time import monotonic
from typing import Any

import kombu.transport.redis
from kombu.transport import TRANSPORT_ALIASES
from redis.exceptions import ResponseError

from hermes_async.transport.channel import Channel
from hermes_async.transport.message import (
    DEFAULT_PRIORITY,
    FIELD,
    dead_letter_key,
    encode_message,
    stream_key,
)

__all__ = [
    "DEFAULT_PRIORITY",
    "FIELD",
    "Channel",
    "SecureTransport",
    "Transport",
    "dead_letter_key",
    "encode_message",
    "stream_key",
]

# Kombu says that it is typed, and is not.
redis: Any = kombu.transport.redis

TRANSPORT_ALIASES["redisstream"] = "hermes_async.transport.streams:Transport"
TRANSPORT_ALIASES["redisstreams"] = "hermes_async.transport.streams:SecureTransport"


#: Seconds that an ack waits for others: nobody waits for it, but all for the processor that sending takes.
ACK_WITHIN = 0.02


class Poller(redis.MultiChannelPoller):  # type: ignore[misc]
    """Sends the acks of many messages at once."""

    #: Celery's event loop; None: a client reads by itself.
    hub: Any = None
    #: When acks are sent; None: there were none.
    _due: float | None = None

    def on_poll_start(self) -> None:
        """Before waiting for replies."""
        if self.hub is None or (self._due is not None and monotonic() >= self._due):  # the timer may be late
            self._flush()
        elif self._due is None and any(channel.has_acks for channel in self._channels):
            self._due = monotonic() + ACK_WITHIN
            self.hub.call_later(ACK_WITHIN, self._flush)
        super().on_poll_start()

    def _flush(self) -> None:
        self._due = None
        for channel in tuple(self._channels):
            channel.flush_acks()


class Transport(redis.Transport):  # type: ignore[misc]
    """`redisstream://user:password@host:port/db`.

    Needs Redis 6.2 or Valkey, one server and not a cluster. A message that is delivered again goes to the end
    of its line; one that has failed max_deliveries times, to the stream `<queue>.dead`.

    Options beside kombu's own: lease (seconds), max_deliveries, dead_letters_kept, stream_group. Those that
    deal with lists have no effect: visibility_timeout, unacked_*, priority_steps, sep, ack_emulation.

    All of `celery inspect`, `control`, `purge` and `events` works, and so do Flower's workers and tasks.
    Flower's Broker page cannot: it picks one of its own classes by the scheme of the URL, has no place for
    others, and asks Redis for the length (LLEN) of lists, which a stream answers with WRONGTYPE. The length
    of a queue is `channel.queue_declare(queue, passive=True).message_count`.
    """

    Channel = Channel
    in_hub = False
    #: What a server refuses for now, it will do when it is the master again, or has room: that is an outage.
    connection_errors = (*redis.Transport.connection_errors, ResponseError)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Celery's worker drives this transport."""
        self.in_hub, self.cycle.hub = True, loop
        super().register_with_event_loop(connection, loop)


class SecureTransport(Transport):
    """`redisstreams://`: the same over TLS.

    The server must prove who it is, unless the URL says `?ssl_cert_reqs=none`; those whose word is taken for
    that may be named by `?ssl_ca_certs=/path`.
    """

    def __init__(self, client: Any, **kwargs: Any) -> None:
        said = client.ssl if isinstance(client.ssl, dict) else {}
        client.ssl = {"ssl_cert_reqs": "required", **said}
        super().__init__(client, **kwargs)
