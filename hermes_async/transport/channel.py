"""A kombu channel over Redis Streams: publishes, claims in batches, gives back what it does not need."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from queue import Empty
from time import monotonic
from typing import Any, ClassVar
from uuid import uuid4

import kombu.transport.redis
import kombu.utils.json
from redis import ConnectionPool, Redis
from redis.exceptions import ResponseError

from hermes_async.transport.entries import Entries, Entry, Group, arrived, claimed
from hermes_async.transport.keeper import Keeper, keeper_of
from hermes_async.transport.message import (
    DEFAULT_PRIORITY,
    FAILURES,
    FIELD,
    PRIORITIES,
    Line,
    Message,
    dead_letter_key,
    decode_json,
    stream_key,
)
from hermes_async.transport.qos import QoS, running_tags

__all__ = ["Channel"]

logger = logging.getLogger(__name__)

# Kombu says that it is typed, and is not.
redis: Any = kombu.transport.redis
json: Any = kombu.utils.json

#: The most messages claimed at once.
BATCH = 100
#: Seconds that a blocked read waits for an entry when there is little to do.
CALM = 0.001
#: Options of the list transport that would break this one.
FIXED = {"priority_steps", "ack_emulation"}
#: What the server says when the stream or the group under a blocked read has gone.
GROUP_LOST = ("NOGROUP", "UNBLOCKED")


class Channel(redis.Channel):  # type: ignore[misc]
    """Claims in batches while there is work, and blocks when there is none, or little."""

    QoS = QoS
    Message = Message
    stream_group = "celery"
    lease = 15.0
    max_deliveries = 5
    dead_letters_kept = 1000
    default_priority = DEFAULT_PRIORITY
    # A server that falls silent must not hold us for ever, as it would by kombu's defaults.
    socket_timeout = 10.0
    socket_connect_timeout = 5.0
    socket_keepalive = True
    health_check_interval = 10
    priority_steps: ClassVar = PRIORITIES
    from_transport_options = (
        *(option for option in redis.Channel.from_transport_options if option not in FIXED),
        "stream_group",
        "lease",
        "max_deliveries",
        "dead_letters_kept",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lines: dict[str, Line] = {}
        self._blocking = False
        #: What came last was waited for, and came alone: there is hardly a batch to claim.
        self._is_calm = False
        self._without_ack: set[str] = set()
        super().__init__(*args, **kwargs)

    # -- publishing and simple operations --------------------------------------------------------------
    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> Any:
        """Kombu takes priority 0 for none; here it is the lowest of ten."""
        marked = {} if properties is None else properties  # the producer goes on to change this very dict
        marked.setdefault("priority", DEFAULT_PRIORITY if priority is None else priority)
        return super().prepare_message(body, priority, content_type, content_encoding, headers, marked)

    def _put(self, queue: str, message: dict[str, Any], _publish_batch: Any = None, **_: Any) -> None:
        key = self._entries.key(Line(queue, self._get_message_priority(message)))
        commands: list[tuple[Any, ...]] = [("xadd", key, {FIELD: json.dumps(message)})]
        if queue in self._expires:
            commands += [("pexpire", key, self._expires[queue]) for key in self._entries.lines([queue])]
        if _publish_batch is None:
            self._run(commands)
            return
        for command in commands:
            _publish_batch.add(*command)

    def _run(self, commands: list[tuple[Any, ...]]) -> None:
        if len(commands) == 1:
            ((name, *args),) = commands
            getattr(self._entries.client, name)(*args)
            return
        with self._entries.client.pipeline(transaction=False) as pipe:
            for name, *args in commands:
                getattr(pipe, name)(*args)
            pipe.execute()

    def _get(self, queue: str) -> dict[str, Any]:
        self.keeper.attach(self, queue)
        lines = self._entries.lines([queue])
        for entry in self.keeper.entries.claim(list(lines), 1, self._lifetimes(lines)):
            message = self._decode(entry, lines[entry.key])
            if message is not None:
                return message
        raise Empty

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message now."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.keeper.ack(message.delivery_tag)
            self.flush_unless_in_hub()
        return message

    def _size(self, queue: str) -> int:
        """Messages that wait to be claimed: what RabbitMQ calls ready, and the length of a Redis list."""
        return self._entries.waiting(queue)

    def _purge(self, queue: str) -> int:
        return self._entries.purge(queue)

    def _q_for_pri(self, queue: str, pri: int) -> str:
        return stream_key(queue, pri)

    # -- consuming -------------------------------------------------------------------------------------
    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue; one whose messages need no ack is acked as it is read."""
        if queue not in self._fanout_queues:
            self.keeper.attach(self, queue)
            (self._without_ack.add if no_ack else self._without_ack.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)
        # As after `celery inspect` in a process that goes on: what is in flight nowhere needs no keeper.
        if not self.active_queues and not self.keeper.held:
            self.keeper.detach(self, ())

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues, credit = self._queue_cycle.consume(len(self.active_queues)), self._credit()
        if queues and credit:
            self._lines = self._entries.lines(queues)
            keys, lifetimes = list(self._lines), self._lifetimes(self._lines)
            if self._is_calm and credit >= len(keys) and not any(lifetimes):
                self._wait()
            else:
                self._send(self.keeper.entries.claim_command(keys, credit, lifetimes), blocking=False)

    def _wait(self) -> None:
        wait_ms = int((self.brpop_timeout or 1) * 1000)
        self._send(self.keeper.entries.wait_command(list(self._lines), wait_ms), blocking=True)

    def _credit(self) -> int:
        room = self.qos.can_consume_max_estimate()
        return BATCH if room is None else min(room, BATCH)

    def _lifetimes(self, lines: dict[str, Line]) -> list[int]:
        return [self._expires.get(line.queue, 0) for line in lines.values()]

    def _send(self, command: list[Any], *, blocking: bool) -> None:
        self._blocking = blocking
        self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **_: Any) -> bool:
        entries = self._read_entries()
        if not entries and not self._blocking and self._in_poll:
            self._wait()
            raise Empty
        self._is_calm = self._blocking and len(entries) == 1 and _since(self._brpop_sent_at) > CALM
        self._in_poll = None
        self._flush_brpop_reauth()
        if not entries:
            raise Empty
        self._deliver_all(entries)
        return True

    def _read_entries(self) -> list[Entry]:
        connection = self.client.connection
        try:
            reply = connection.read_response()
        except ResponseError as error:
            self._in_poll = None
            if not str(error).startswith(GROUP_LOST):
                raise
            return []  # the next claim makes the group again
        except self.connection_errors:
            self._in_poll = None
            connection.disconnect()
            raise
        return list(arrived(reply) if self._blocking else claimed(reply))

    def _deliver_all(self, entries: list[Entry]) -> None:
        if _since(self._brpop_sent_at) > self.lease / 2:
            entries = self._still_ours(entries)
        wanted = [entry for entry in entries if self._is_wanted(entry)]
        credit = self._credit()
        self._return(wanted[credit:])  # a blocked read may bring one of each stream
        for entry in wanted[:credit]:
            line = self._lines[entry.key]
            message = self._decode(entry, line)
            if message is not None:
                self._queue_cycle.rotate(line.queue)
                self._deliver_one(message, line)

    def _is_wanted(self, entry: Entry) -> bool:
        line = self._lines[entry.key]
        if line.queue not in self._active_queues:  # cancelled while the read was on its way
            self._return([entry])
            return False
        # A group that had to be made again begins with what is in our hands.
        return line.tag(entry.id) not in self.keeper.held

    def _deliver_one(self, message: dict[str, Any], line: Line) -> None:
        tag = message["properties"]["delivery_tag"]
        if line.queue in self._without_ack:
            self.keeper.ack(tag)
        try:
            self.connection._deliver(message, line.queue)
        except self.connection_errors:
            raise
        except Exception:  # of whoever takes it: one message that nobody expects must not end a worker
            self.qos.forget(tag)
            self._bury(tag, line)

    def _decode(self, entry: Entry, line: Line) -> dict[str, Any] | None:
        tag = line.tag(entry.id)
        try:
            message: dict[str, Any] = decode_json(entry.fields[FIELD])
            message["properties"]["delivery_tag"] = tag
            if FAILURES in entry.fields:
                message["headers"] |= {"redelivered": True, "x-deliveries": int(entry.fields[FAILURES]) + 1}
                message["properties"].setdefault("delivery_info", {})["redelivered"] = True
        except (ValueError, KeyError, TypeError, RecursionError):
            self._bury(tag, line)
            return None
        return message

    def _bury(self, tag: str, line: Line) -> None:
        """Put a message that cannot be processed where somebody can look at it."""
        logger.exception("Message %s cannot be processed; it is now in %s", tag, dead_letter_key(line.queue))
        self.keeper.entries.give_back([tag], failed=True, allowed=1)

    def _still_ours(self, entries: list[Entry]) -> list[Entry]:
        """This process has slept on the reply: others may have reaped what it brings."""
        tags = {self._lines[entry.key].tag(entry.id): entry for entry in entries}
        ours = self.keeper.entries.still_ours(list(tags))
        return [entry for tag, entry in tags.items() if tag in ours]

    def _return(self, entries: Iterable[Entry]) -> None:
        tags = [self._lines[entry.key].tag(entry.id) for entry in entries]
        if tags:
            self.keeper.entries.give_back(tags)

    # -- acks and closing ------------------------------------------------------------------------------
    @property
    def has_acks(self) -> bool:
        """Whether this process has acks to send."""
        return self.keeper.has_acks

    def flush_acks(self) -> None:
        """Send the acks of this process; an outage is noticed by the reader, and they are kept."""
        with suppress(*self.connection_errors):
            self.keeper.flush()

    def flush_unless_in_hub(self) -> None:
        """The event loop flushes a little later; without one an ack is sent at once."""
        if self.connection is not None and not self.connection.in_hub:
            self.keeper.flush()

    def close(self) -> None:
        """Give back what is not done, and leave the group; without a server, the leases lapse instead."""
        if not self.closed and "keeper" in self.__dict__ and not self.keeper.is_inherited():
            for step in (self._stop_polling, self.qos.restore_unacked_once, self.keeper.flush):
                with suppress(*self.connection_errors):
                    step()
            self.keeper.detach(self, running_tags())
        super().close()

    def _stop_polling(self) -> None:
        connection = self._in_poll
        if not connection:
            return
        if self._blocking and not redis._socket_readable(connection._sock):
            connection.disconnect()  # what arrives at this very moment is given back when we leave the group
        else:
            self._return(self._read_entries())
        self._in_poll = None

    # -- connections -----------------------------------------------------------------------------------
    @cached_property
    def _entries(self) -> Entries:
        """Over this channel's own connections, for publishing and counting."""
        return Entries(Redis(connection_pool=self.pool), self._group(consumer=""))

    @cached_property
    def keeper(self) -> Keeper:
        """Shared by all channels of this process to the same broker."""
        info, group = self.connection.client, self._group(consumer="")
        broker = (info.hostname, info.port, info.virtual_host, info.userid)
        return keeper_of((broker, group, self.lease), self._make_keeper)

    def _make_keeper(self) -> Keeper:
        settings = self._connparams()
        settings["socket_timeout"] = min(self.socket_timeout or self.lease, max(self.lease / 3, 1.0))
        client = Redis(connection_pool=ConnectionPool(**settings))
        consumer = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        return Keeper(Entries(client, self._group(consumer)), float(self.lease))

    def _group(self, consumer: str) -> Group:
        return Group(
            self.stream_group, consumer, self.max_deliveries, self.dead_letters_kept, self.global_keyprefix
        )

    def _disconnect_pools(self) -> None:
        self.__dict__.pop("_entries", None)
        super()._disconnect_pools()


def _since(moment: float | None) -> float:
    return 0.0 if moment is None else monotonic() - moment
