"""The transport on a server that forgets, refuses, restarts or falls silent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from hermes_async.transport.entries import Entries, Group
from hermes_async.transport.message import FIELD
from hermes_async.transport.streams import stream_key
from tests.support.inbox import Connect, Inbox, publish
from tests.support.proxy import Mode, Proxy, proxy_to
from tests.support.servers import RedisServer, running_redis, wait_until


def lines(queue: str = "jobs") -> list[str]:
    return [stream_key(queue, priority) for priority in range(10)]


def pending(client: redis.Redis, key: str = "jobs") -> int:
    return int(client.xpending(key, "celery")["pending"])


def left(client: redis.Redis) -> int:
    return sum(client.xlen(key) for key in lines())


# -- a server that forgets -------------------------------------------------------------------------------
FORGETTING: dict[str, Callable[[redis.Redis], object]] = {
    "flushall": lambda client: client.flushall(),
    "the stream": lambda client: client.delete(*lines()),
    "the group": lambda client: client.xgroup_destroy("jobs", "celery"),
}


@pytest.mark.parametrize("what", FORGETTING)
def test_what_is_forgotten_while_messages_are_in_flight(
    connect: Connect, client: redis.Redis, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    inbox = Inbox(connect(), prefetch=4)
    publish(connect(), "held", "acked later")
    inbox.drain(2)
    inbox.drain(3, timeout=0.2)  # now a blocked read is on the wire
    FORGETTING[what](client)
    publish(connect(), "after")
    assert inbox.drain(3) == ["held", "acked later", "after"]
    inbox.messages[1].ack()
    publish(connect(), "and on")
    assert inbox.drain(4) == ["held", "acked later", "after", "and on"]
    assert inbox.drain(5, timeout=2) == inbox.drain(4)  # nothing came again, for two leases
    for message in (inbox.messages[0], *inbox.messages[2:]):
        message.ack()
    assert left(client) == 0
    assert "could not be renewed" not in caplog.text


def test_what_a_consumer_holds_is_kept_although_a_group_of_another_stream_is_gone(
    connect: Connect, client: redis.Redis
) -> None:
    inbox = Inbox(connect())
    publish(connect(), "gone", priority=9)
    publish(connect(), "kept")
    inbox.drain(2)
    client.delete("jobs:9")
    assert Inbox(connect()).drain(1, timeout=2) == []  # for two leases
    assert pending(client) == 1


def test_a_restart_with_nothing_on_disk(tmp_path: Path, connect: Connect) -> None:
    for server in running_redis(tmp_path):
        inbox = Inbox(connect(server.broker))
        publish(connect(server.broker), "before")
        inbox.drain(1)
        server.restart()
        publish(connect(server.broker), "after")
        assert reborn(inbox).drain(1) == ["after"]


def test_a_restart_with_everything_on_disk(tmp_path: Path, connect: Connect) -> None:
    for server in running_redis(tmp_path, aof=True):
        first = Inbox(connect(server.broker, lease=30.0), prefetch=2)
        publish(connect(server.broker), "held")
        first.drain(1)
        publish(connect(server.broker), "waiting", priority=0)
        server.restart()
        # Nobody was at work on what was held: it is given back at once, and not when the lease is over.
        assert sorted(reborn(first).drain(2)) == ["held", "waiting"]


def reborn(inbox: Inbox) -> Inbox:
    """What Celery does when it loses the connection: close it, open another, and consume again."""
    connection = inbox.connection
    with pytest.raises(connection.connection_errors):
        while True:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)
    connection.collect()
    connection.ensure_connection(max_retries=20, interval_start=0.1)
    return Inbox(connection)


# -- a server that refuses -------------------------------------------------------------------------------
def test_a_replica_is_an_outage_until_it_is_the_master(
    tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    for server in running_redis(tmp_path):
        with server.client() as client:
            publisher, inbox = connect(server.broker), Inbox(connect(server.broker))
            publish(publisher, "before")
            inbox.drain(1)
            client.replicaof("127.0.0.1", server.port)
            with pytest.raises(inbox.connection.connection_errors, match="read only"):
                inbox.messages[0].ack()  # told later
            with pytest.raises(OperationalError):
                publisher.ensure(publisher, publish, max_retries=1, interval_start=0)(publisher, "x")
            with pytest.raises(inbox.connection.connection_errors):
                inbox.drain(2)
            client.replicaof("NO", "ONE")
            publish(publisher, "after")
            inbox.connection.collect()
            assert Inbox(inbox.connection).drain(1) == ["after"]
            assert client.xlen("jobs") == 1


# -- a connection that breaks ----------------------------------------------------------------------------
@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[Proxy]:
    with proxy_to(redis_server.port) as proxy:
        yield proxy


def through(proxy: Proxy) -> str:
    return f"redisstream://127.0.0.1:{proxy.port}/0"


def test_a_reset_connection_is_noticed_at_once(connect: Connect, client: redis.Redis, proxy: Proxy) -> None:
    inbox = Inbox(connect(through(proxy)))
    publish(connect(), "before")
    inbox.drain(1)
    proxy.cut()
    publish(connect(), "after")
    assert sorted(reborn(inbox).drain(2)) == ["after", "before"]  # what is not acked comes again


def test_a_half_open_connection_is_noticed_in_time(
    connect: Connect, client: redis.Redis, proxy: Proxy
) -> None:
    inbox = Inbox(connect(through(proxy), health_check_interval=1, socket_timeout=1.0))
    publish(connect(), "before")
    inbox.drain(1)
    proxy.set(Mode.DROP)
    proxy.set(Mode.HALF_OPEN)
    publish(connect(), "after")
    assert "after" in inbox.drain(2, timeout=15)  # kombu's own patience is 51 s


def test_nothing_blocks_for_ever_by_default(connect: Connect, client: redis.Redis) -> None:
    channel = connect().default_channel
    assert channel.socket_timeout and channel.socket_connect_timeout and channel.health_check_interval


# -- a consumer that sleeps ------------------------------------------------------------------------------
def test_who_overslept_acks_nothing_of_those_who_took_over(connect: Connect, client: redis.Redis) -> None:
    sleeper = Inbox(connect(lease=30.0))
    publish(connect(), "x")
    sleeper.drain(1)
    keeper = sleeper.connection.default_channel.keeper
    keeper._stop.set()  # as if the whole process were stopped
    Entries(client, Group(consumer="other")).reap(["jobs"], 0)
    heir = Entries(client, Group(consumer="heir"))
    (entry,) = heir.claim(["jobs"], 1, [0])
    keeper.entries.renew(keeper.held)  # it wakes up: it renews, and is done
    sleeper.messages[0].ack()
    assert [each["consumer"] for each in client.xpending_range("jobs", "celery", "-", "+", 9)] == ["heir"]
    assert client.xrange("jobs") == [(entry.id, entry.fields)]


# -- dead letters ----------------------------------------------------------------------------------------
def test_what_is_dead_is_told_and_kept_readable(
    connect: Connect, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    publish(connect(), "poison", headers={"id": "t1"})
    inbox = Inbox(connect(max_deliveries=1))
    inbox.drain(1)
    with caplog.at_level(logging.WARNING, "hermes_async.transport"):
        inbox.messages[0].reject(requeue=True)
    assert "messages of jobs that failed for good: 1; they are now in jobs.dead" in caplog.text
    ((_, fields),) = client.xrange("jobs.dead")
    assert fields["n"] == "1"
    client.xadd("jobs", {FIELD: fields[FIELD]})  # how an operator brings it back
    assert inbox.drain(2) == ["poison", "poison"]
    assert inbox.messages[1].headers["id"] == "t1"


def test_only_so_many_dead_letters_are_kept(connect: Connect, client: redis.Redis) -> None:
    inbox = Inbox(connect(max_deliveries=1, dead_letters_kept=100))
    publish(connect(), *range(400))
    inbox.drain(400)
    for message in inbox.messages:
        message.reject(requeue=True)
    assert 100 <= client.xlen("jobs.dead") <= 200  # Redis drops whole nodes of a hundred
    assert left(client) == 0


# -- several queues, consumers and apps ------------------------------------------------------------------
def test_two_consumers_of_two_queues_claim_strictly_by_priority(
    connect: Connect, client: redis.Redis
) -> None:
    queues = [Queue(name, Exchange(""), routing_key=name) for name in ("a", "b")]
    connection = connect()
    for priority in (0, 5, 9, 3, 7):
        for queue in queues:
            publish(connection, priority, priority, queue=queue, priority=priority)
    inboxes = [Inbox(connect(), *queues, prefetch=1) for _ in range(2)]
    order = []
    for step in range(20):
        inbox = inboxes[step % 2]
        inbox.drain(step // 2 + 1)
        order.append(inbox.messages[-1].payload)
        inbox.messages[-1].ack()
    assert order == sorted(order, reverse=True)
    taken = [message.delivery_info["routing_key"] for inbox in inboxes for message in inbox.messages]
    assert (taken.count("a"), taken.count("b")) == (10, 10)


def test_two_queues_of_one_priority_take_turns(connect: Connect, client: redis.Redis) -> None:
    queues = [Queue(name, Exchange(""), routing_key=name) for name in ("busy", "quiet")]
    publish(connect(), *range(20), queue=queues[0])
    inbox = Inbox(connect(), *queues, prefetch=1)
    inbox.drain(1)
    publish(connect(), "quiet", queue=queues[1])
    for count in (1, 2, 3):
        inbox.drain(count)
        inbox.messages[-1].ack()
    assert "quiet" in inbox.drain(4)[:4]


def test_what_is_urgent_overtakes_as_soon_as_there_is_room(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), *range(10), priority=5)
    inbox = Inbox(connect(), prefetch=2)
    inbox.drain(2)
    publish(connect(), "urgent", priority=9)
    assert inbox.drain(3, timeout=0.3) == [0, 1]
    inbox.messages[0].ack()
    assert inbox.drain(3) == [0, 1, "urgent"]


def test_a_queue_that_is_cancelled_gets_back_what_is_on_its_way(
    connect: Connect, client: redis.Redis
) -> None:
    inbox = Inbox(connect())
    inbox.drain(1, timeout=0.3)  # now a blocked read is on the wire
    inbox.consumer.add_queue(Queue("more", Exchange(""), routing_key="more"))
    inbox.consumer.consume()
    inbox.consumer.cancel_by_queue("jobs")
    publish(connect(), "x")
    wait_until(lambda: inbox.drain(1, timeout=0.1) == [] and pending(client) == 0)
    ((_, fields),) = client.xrange("jobs")
    assert fields["n"] == "0"  # which is no failure
    assert Inbox(connect()).drain(1) == ["x"]


def test_apps_with_prefixes_of_their_own_do_not_meet(connect: Connect, client: redis.Redis) -> None:
    inboxes = {name: Inbox(connect(global_keyprefix=name)) for name in ("one.", "two.", "")}
    for name in inboxes:
        publish(connect(global_keyprefix=name), f"for {name}", priority=9)
    for name, inbox in inboxes.items():
        assert inbox.drain(2, timeout=0.5) == [f"for {name}"]
        inbox.messages[0].reject(requeue=True)
        assert inbox.drain(2) == [f"for {name}"] * 2
        inbox.messages[1].ack()
        assert connect(global_keyprefix=name).default_channel.queue_purge("jobs") == 0


# -- memory ----------------------------------------------------------------------------------------------
def test_what_is_done_takes_no_memory(connect: Connect, client: redis.Redis) -> None:
    inbox = Inbox(connect())
    publish(connect(), *range(1000))
    inbox.drain(1000)
    assert client.xinfo_stream("jobs")["radix-tree-nodes"] > 2
    full = client.memory_usage("jobs", samples=0)
    for message in inbox.messages:
        message.ack()
    info = client.xinfo_stream("jobs")
    assert (info["length"], info["radix-tree-keys"]) == (0, 0)
    assert pending(client) == 0
    assert client.memory_usage("jobs", samples=0) < full / 50
