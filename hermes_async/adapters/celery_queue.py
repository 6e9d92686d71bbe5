"""The queue over kombu: Celery's own messages, made here so that a dispatching process needs no Celery."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import anyio
import anyio.to_thread
from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import KombuError, OperationalError
from kombu.pidbox import Mailbox

from hermes_async.adapters.confirms import Confirms
from hermes_async.adapters.cures import cure
from hermes_async.core.ports import Parcel
from hermes_async.domain.agent import NAMESPACE, SubagentSpec
from hermes_async.domain.errors import QueueUnavailable
from hermes_async.domain.task import Lane, Task
from hermes_async.domain.urls import is_rabbitmq, masked
from hermes_async.transport.streams import encode_message, stream_key

logger = logging.getLogger("hermes.queue")

#: Our names of kombu's transports, where they differ.
SCHEMES = {
    "redis": "redisstream",
    "rediss": "redisstreams",
    "unix": "redisstream+socket",
    "redis+list": "redis",
    "rediss+list": "rediss",
    "unix+list": "redis+socket",
}
#: Seconds to connect and to wait for a reply.
CONNECT_TIMEOUT, REPLY_TIMEOUT = 1.4, 2.5
#: The same as the libraries call it: first redis-py, then py-amqp.
TIMEOUTS = {
    "socket_connect_timeout": CONNECT_TIMEOUT,
    "socket_timeout": REPLY_TIMEOUT,
    "read_timeout": REPLY_TIMEOUT,
    "write_timeout": REPLY_TIMEOUT,
}
#: The most messages that one round trip carries to Redis.
BATCH = 1_000
#: Seconds between the end of an attempt's time and the moment at which Celery kills what still runs.
GRACE = 10.0
#: What a lane's queue is on RabbitMQ, whatever is the default there: a quorum queue refuses `x-max-priority`.
CLASSIC = {"x-queue-type": "classic"}
#: Milliseconds that RabbitMQ waits for the ack of a message, which we send when its task has ended: 24 days.
#: Before 3.12 it knows only a limit for all queues, 30 minutes by default, and closes the channel then; a
#: worker comes back from that, its task runs on, and the second message finds that there is nothing to claim.
CONSUMER_TIMEOUT = {"x-consumer-timeout": 24 * 86_400_000}
#: The first RabbitMQ whose classic queues know no such limit; 4.3.2 refuses who asks them for one.
WITHOUT_CONSUMER_TIMEOUT = 4, 3
#: A Celery body without arguments: `(args, kwargs, embed)`. All that a worker needs is in the record.
_BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"


def queue_name(lane: Lane, namespace: str = NAMESPACE) -> str:
    """Return the name of a lane's queue."""
    return f"{namespace}.{lane}"


def exchange_name(celerys: str, namespace: str = NAMESPACE) -> str:
    """Return what an exchange of Celery's own is called, so that each project has its own."""
    return celerys if namespace == NAMESPACE else f"{celerys}.{namespace}"


def mailbox(namespace: str = NAMESPACE) -> Mailbox:
    """Return what commands a project's workers, or asks them."""
    return Mailbox(exchange_name("celery", namespace), type="fanout", accept=["json"], serializer="json")


def task_name(agent: str) -> str:
    """Return the name of an agent's Celery task."""
    return f"hermes.{agent}"


def transport_url(url: str) -> str:
    """Return the broker URL as kombu knows it: Redis is our transport over streams, but for `+list`."""
    scheme, _, rest = url.partition("://")
    if is_rabbitmq(url):
        return url
    place, _, query = rest.replace(";", "%3B").partition("?")  # kombu takes what follows one for another URL
    if scheme.startswith("unix"):
        query = query.replace("db=", "virtual_host=")
    elif scheme == "rediss+list" and "ssl_cert_reqs=" not in query:
        query = f"{query}&ssl_cert_reqs=required".strip("&")  # or kombu would not even use TLS
    return f"{SCHEMES.get(scheme, scheme)}://{place}{query and '?'}{query}"


def over_lists(url: str) -> bool:
    """Tell whether the broker is a Redis over kombu's stock transport."""
    return url.partition("://")[0].endswith("+list")


def over_streams(url: str) -> bool:
    """Tell whether it is one over our transport."""
    return not (over_lists(url) or is_rabbitmq(url))


def time_limits(lane: Lane, options: SubagentSpec) -> tuple[float | None, float | None]:
    """Return Celery's hard and soft limit of an attempt, in seconds.

    In the async lane the runner itself ends an attempt in time; Celery's hard limit is there for a coroutine
    that does not listen.
    """
    limits = [limit for limit in (options.timeout, options.total_timeout) if limit is not None]
    if not limits:
        return None, None
    return min(limits) + GRACE, options.timeout if lane is Lane.PROCESS else None


class CeleryQueue:
    """Publishes task ids as Celery task messages.

    Args:
        url: the broker.
        shares_store: the broker is the Redis of the store, so the pen may add the message itself.
        namespace: begins the names of the queues.
    """

    def __init__(self, url: str, *, shares_store: bool, namespace: str = NAMESPACE) -> None:
        self._where = masked(url)
        self._namespace = namespace
        self._mailbox = mailbox(namespace)
        self._to_store = shares_store and over_streams(url)
        #: kombu's lists serve 0 first, everybody else 9.
        self._is_reversed = over_lists(url)
        #: Over Redis a message that is written is there.
        self._confirms = is_rabbitmq(url)
        options = dict(TIMEOUTS)
        connection = Connection(
            transport_url(url), connect_timeout=CONNECT_TIMEOUT, transport_options=options
        )
        self._connections = connection.Pool(limit=2)

    def parcel(self, task: Task) -> Parcel | None:
        """Return the message for the store to add, or None when the broker is elsewhere."""
        if not self._to_store:
            return None
        lane, options = task.lane, task.birth.options
        queue = queue_name(lane, self._namespace)
        form = _form(task.agent, queue, options.priority, time_limits(lane, options))
        return Parcel(stream_key(queue, options.priority), _filled(form, task))

    async def publish_all(self, tasks: Sequence[Task]) -> None:
        """Hand tasks to the broker, off the event loop, and wait until it has confirmed them all.

        Raises:
            QueueUnavailable: it has perhaps only some. All may be published again: a second message of a
                task finds that there is nothing to claim.
        """
        if tasks:
            await self._in_thread(self._publish_all, tasks)

    async def ping(self) -> None:
        """Connect to the broker, unless a connection is there.

        Raises:
            QueueUnavailable: it refuses us, or cannot be reached.
        """
        await self._in_thread(lambda connection, _: None, None)

    async def revoke(self, task_ids: Sequence[str], *, force: bool) -> None:
        """Ask every worker to stop the tasks: SIGUSR1 lets a process clean up, SIGKILL does not."""
        signal = "SIGKILL" if force else "SIGUSR1"
        arguments = {"task_id": list(task_ids), "terminate": True, "signal": signal}
        try:
            await self._in_thread(self._broadcast, arguments)
        except QueueUnavailable as exc:  # the record knows; the worker learns it with its next renewal
            logger.warning("the cancel of %s is not broadcast: %s", ", ".join(task_ids), exc)

    async def close(self) -> None:
        """Give back every connection."""
        await anyio.to_thread.run_sync(self._connections.force_close_all)

    async def _in_thread(self, function: Callable[[Connection, Any], None], argument: Any) -> None:
        try:
            await anyio.to_thread.run_sync(self._with_connection, function, argument)
        except (KombuError, OSError) as exc:
            said = f"({exc})".replace(".)", ")")
            message = f"the broker at {self._where} does not work {said}{cure(self._where, said)}"
            raise QueueUnavailable(message) from exc

    def _with_connection(self, function: Callable[[Connection, Any], None], argument: Any) -> None:
        with self._connections.acquire(block=True) as connection:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=REPLY_TIMEOUT)
                function(connection, argument)
            except BaseException as exc:
                connection.collect()  # who knows what is still on the wire
                # Also of a refused password, which kombu takes for no library's error.
                if isinstance(exc, (*connection.connection_errors, *connection.channel_errors)):
                    raise OperationalError(str(exc)) from exc
                raise

    def _publish_all(self, connection: Connection, tasks: Sequence[Task]) -> None:
        with connection.Producer(serializer="json") as producer:
            # Once more at once, for a connection that was closed while it was idle.
            send = connection.ensure(producer, self._send_all, max_retries=1, interval_start=0)
            send(producer, tasks)

    def _send_all(self, producer: Producer, tasks: Sequence[Task]) -> None:
        for lane in {task.lane for task in tasks}:
            producer.maybe_declare(declared_queue(lane, self._namespace))
        confirms = Confirms.of(producer.channel) if self._confirms else None
        if confirms:
            confirms.expect(len(tasks))
        with producer.batch(BATCH):
            for task in tasks:
                self._send(producer, task)
        if confirms:
            confirms.wait(REPLY_TIMEOUT)

    def _send(self, producer: Producer, task: Task) -> None:
        priority = task.birth.options.priority
        producer.publish(
            _BODY,
            exchange="",
            routing_key=queue_name(task.lane, self._namespace),
            content_type="application/json",
            content_encoding="utf-8",
            headers=_headers_of(task),
            correlation_id=task.id,
            priority=9 - priority if self._is_reversed else priority,
            mandatory=True,  # to a queue that somebody has deleted RabbitMQ would confirm it, too
        )

    def _broadcast(self, connection: Connection, arguments: dict[str, Any]) -> None:
        self._mailbox(connection)._broadcast("revoke", arguments)


class LaneQueue(Queue):  # type: ignore[misc]
    """A queue that asks RabbitMQ for the time that a task may take."""

    def queue_declare(self, nowait: bool = False, passive: bool = False, channel: Any = None) -> Any:
        """Declare it with what the server understands; only now it is known which one that is."""
        said = getattr((channel or self.channel).connection, "server_properties", {})
        self.queue_arguments = queue_arguments(said.get("version", ""))
        return super().queue_declare(nowait=nowait, passive=passive, channel=channel)


def queue_arguments(version: str) -> dict[str, Any]:
    """Return what is asked of a RabbitMQ of this version; other brokers tell none."""
    found = re.match(r"(\d+)\.(\d+)", version)
    knows_limit = found and (int(found[1]), int(found[2])) < WITHOUT_CONSUMER_TIMEOUT
    return {**CLASSIC, **CONSUMER_TIMEOUT} if knows_limit else CLASSIC


def declared_queue(lane: Lane, namespace: str = NAMESPACE) -> Queue:
    """Return a lane's queue as both sides declare it."""
    name = queue_name(lane, namespace)
    return LaneQueue(name, Exchange(""), routing_key=name, max_priority=9)


#: Where a message has what differs between two tasks of an agent.
_ID, _ROOT, _PARENT, _TRACE = "~id~", "~root~", "~parent~", "~trace~"


@lru_cache(maxsize=1_000)
def _form(agent: str, queue: str, priority: int, limits: tuple[float | None, float | None]) -> str:
    """Return the text of an agent's messages: made once, because most of them are alike."""
    ids = {"id": _ID, "root_id": _ROOT, "parent_id": _PARENT, "traceparent": _TRACE}
    headers = _headers(agent, limits, **ids)
    return encode_message(_BODY, queue=queue, headers=headers, correlation_id=_ID, priority=priority)


def _filled(form: str, task: Task) -> str:
    birth = task.birth
    parent = "null" if birth.parent_task_id is None else f'"{birth.parent_task_id}"'
    text = form.replace(_ID, task.id).replace(_ROOT, birth.root_task_id or task.id)
    return text.replace(f'"{_PARENT}"', parent).replace(_TRACE, birth.traceparent)


def _headers_of(task: Task) -> dict[str, Any]:
    birth = task.birth
    return _headers(
        task.agent,
        time_limits(task.lane, birth.options),
        id=task.id,
        root_id=birth.root_task_id or task.id,
        parent_id=birth.parent_task_id,
        traceparent=birth.traceparent,
    )


def _headers(agent: str, limits: tuple[float | None, float | None], **ids: str | None) -> dict[str, Any]:
    """Return the headers of Celery's task message protocol, version 2, but for those that would be None."""
    return {
        "lang": "py",
        "task": task_name(agent),
        "retries": 0,
        "timelimit": limits,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": _ORIGIN,
        "ignore_result": True,
        **ids,
    }
