"""The transport as any kombu user sees it: one process, a real server."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.simple import SimpleQueue

from hermes_async.transport.entries import Entries, Group
from hermes_async.transport.message import Line, dead_letter_key
from hermes_async.transport.streams import DEFAULT_PRIORITY, FIELD, encode_message, stream_key
from tests.support.inbox import QUEUE, Connect, Inbox, publish
from tests.support.servers import RedisServer, wait_until


def test_names() -> None:
    assert stream_key("jobs") == stream_key("jobs", DEFAULT_PRIORITY) == "jobs"
    assert stream_key("jobs", 9) == "jobs:9"
    assert stream_key("jobs", 12) == "jobs:9"
    assert len({stream_key("jobs", priority) for priority in range(10)}) == 10
    assert dead_letter_key("jobs") == "jobs.dead"


def test_a_tag_names_its_line() -> None:
    line = Line("a@b:9", 3)
    assert Line.of_tag(line.tag("17-0")) == (line, "17-0")


def test_messages_arrive_in_order_and_leave_nothing(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), 1, 2, 3, priority=5)
    inbox = Inbox(connect())
    assert inbox.drain(3) == [1, 2, 3]
    for message in inbox.messages:
        message.ack()
    assert client.xlen("jobs") == 0
    assert client.xpending("jobs", "celery")["pending"] == 0


def test_nine_is_first(connect: Connect) -> None:
    connection = connect()
    for priority in (0, 5, 9, 3, 9):
        publish(connection, priority, priority=priority)
    assert Inbox(connect()).drain(5) == [9, 9, 5, 3, 0]


def test_a_consumer_with_little_to_do_claims_no_batches(connect: Connect, client: redis.Redis) -> None:
    connection, inbox = connect(), Inbox(connect(), prefetch=100)
    for number in range(5):
        inbox.drain(number + 1, timeout=0.1)  # it waits when the next one comes
        if number == 1:
            client.config_resetstat()
        publish(connection, number, priority=number)
    assert inbox.drain(5) == [0, 1, 2, 3, 4]
    assert "cmdstat_eval" not in client.info("commandstats")


def test_a_message_without_priority_is_in_the_middle(connect: Connect, client: redis.Redis) -> None:
    channel = connect().default_channel
    assert channel.prepare_message("x")["properties"]["priority"] == DEFAULT_PRIORITY
    assert channel.prepare_message("x", 0)["properties"]["priority"] == 0
    assert channel.prepare_message("x", properties={"priority": 7})["properties"]["priority"] == 7


def test_prefetch_is_honoured(connect: Connect, client: redis.Redis) -> None:
    connection = connect()
    publish(connection, *range(10))
    inbox = Inbox(connect(), prefetch=3)
    assert inbox.drain(4, timeout=0.5) == [0, 1, 2]
    assert connection.default_channel.queue_declare("jobs").message_count == 7
    inbox.messages[0].ack()
    assert inbox.drain(4) == [0, 1, 2, 3]


def test_messages_without_ack_are_gone_when_read(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), "a", "b", priority=5)
    inbox = Inbox(connect(), no_ack=True)
    assert inbox.drain(2) == ["a", "b"]
    inbox.drain(3, timeout=0.2)
    assert client.xlen("jobs") == 0


def test_purge_takes_only_what_waits(connect: Connect) -> None:
    connection = connect()
    publish(connection, *range(5), priority=3)
    inbox = Inbox(connect(), prefetch=2)
    inbox.drain(2)
    assert connection.default_channel.queue_purge("jobs") == 3
    assert connection.default_channel.queue_declare("jobs").message_count == 0
    inbox.consumer.connection.release()  # gives the two back
    assert Inbox(connect()).drain(2) == [0, 1]


def test_one_message_at_a_time(connect: Connect, client: redis.Redis) -> None:
    with SimpleQueue(connect(), QUEUE) as queue:
        queue.put("hello")
        message = queue.get(timeout=5)
        assert message.payload == "hello"
        message.ack()
        with pytest.raises(queue.Empty):
            queue.get_nowait()
    assert connect().default_channel.basic_get("jobs") is None
    assert sum(client.xlen(stream_key("jobs", p)) for p in range(10)) == 0


def test_what_a_closing_consumer_holds_goes_back_uncounted(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), "x", priority=5)
    for _ in range(7):  # more than max_deliveries
        holder = connect()
        inbox = Inbox(holder)
        assert inbox.drain(1) == ["x"]
        holder.release()
    assert client.xlen("jobs.dead") == 0
    assert client.xinfo_consumers("jobs", "celery") == []


def test_rejected_messages_come_again_and_end_in_the_dead_letters(
    connect: Connect, client: redis.Redis
) -> None:
    publish(connect(), "poison", priority=9)
    inbox = Inbox(connect(max_deliveries=3))
    for delivery in (1, 2, 3):
        assert inbox.drain(delivery) == ["poison"] * delivery
        inbox.messages[-1].reject(requeue=True)
    assert inbox.messages[0].headers.get("x-deliveries") is None
    assert inbox.messages[2].headers["x-deliveries"] == 3
    assert inbox.messages[2].delivery_info["redelivered"] is True
    assert inbox.drain(4, timeout=0.3) == ["poison"] * 3
    assert client.xlen("jobs:9") == 0
    ((_, fields),) = client.xrange("jobs.dead")
    assert json.loads(fields[FIELD])["properties"]["priority"] == 9


def test_a_text_that_is_no_message_is_buried(connect: Connect, client: redis.Redis) -> None:
    inbox = Inbox(connect())
    client.xadd("jobs", {FIELD: "{broken"})
    client.xadd("jobs", {"other": "field"})
    publish(connect(), "fine")
    assert inbox.drain(1) == ["fine"]
    assert [fields[FIELD] for _, fields in client.xrange("jobs.dead")] == ["{broken", ""]


def test_an_outsider_may_append_a_message(connect: Connect, client: redis.Redis) -> None:
    text = encode_message(b'{"a": 1}', queue="jobs", headers={"task": "t"}, correlation_id="c1", priority=7)
    client.xadd(stream_key("jobs", 7), {FIELD: text})
    inbox = Inbox(connect())
    assert inbox.drain(1) == [{"a": 1}]
    (message,) = inbox.messages
    assert message.headers["task"] == "t"
    assert message.properties["correlation_id"] == "c1"
    message.ack()
    assert client.xlen("jobs:7") == 0


def test_the_encoder_writes_what_kombu_writes(connect: Connect, client: redis.Redis) -> None:
    headers = {"task": "t", "id": "i", "eta": None}
    publish(connect(), {"a": [1]}, headers=headers, correlation_id="i", reply_to="r", priority=2)
    ((_, fields),) = client.xrange("jobs:2")
    kombu = json.loads(fields[FIELD])
    ours = json.loads(
        encode_message(
            b'{"a": [1]}', queue="jobs", headers=headers, correlation_id="i", reply_to="r", priority=2
        )
    )
    for message in (kombu, ours):
        message["properties"].pop("delivery_tag")
    assert ours == kombu


def test_the_lease_is_kept_while_the_main_thread_sleeps(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), "long", priority=5)
    Inbox(connect(lease=0.6)).drain(1)

    def idle() -> int:
        (pending,) = client.xpending_range("jobs", "celery", "-", "+", 1)
        return int(pending["time_since_delivered"])

    seen = []
    wait_until(lambda: seen.append(idle()) or len(seen) > 30, every=0.05)
    assert max(seen) < 600


def test_what_a_dead_consumer_left_is_delivered_again(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), "orphan", priority=5)
    dead = Entries(client, Group(consumer="dead"))
    assert len(dead.claim(["jobs"], 10, [0])) == 1
    inbox = Inbox(connect(lease=0.5))
    assert inbox.drain(1) == ["orphan"]
    assert inbox.messages[0].headers["x-deliveries"] == 2


def test_a_dead_consumer_s_many_messages_are_given_back_at_once(
    connect: Connect, client: redis.Redis
) -> None:
    publish(connect(), *range(250))
    Entries(client, Group(consumer="dead")).claim(["jobs"], 250, [0])
    assert Entries(client, Group(consumer="other")).reap(["jobs"], 0) == 250
    assert client.xpending("jobs", "celery")["pending"] == 0


def test_consumers_that_vanished_are_forgotten(
    connect: Connect, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.transport.entries.CONSUMER_IDLE_MS", -1)
    entries = Entries(client, Group(consumer="gone"))
    client.xadd("jobs", {FIELD: "x"})
    entries.claim(["jobs"], 1, [0])
    entries.forget_idle_consumers(["jobs"])
    assert [consumer["name"] for consumer in client.xinfo_consumers("jobs", "celery")] == ["gone"]
    entries.reap(["jobs"], 0)
    entries.forget_idle_consumers(["jobs"])
    assert client.xinfo_consumers("jobs", "celery") == []


def test_flushall_is_survived(connect: Connect, client: redis.Redis) -> None:
    inbox = Inbox(connect())
    publish(connect(), "before")
    inbox.drain(1)
    client.flushall()
    publish(connect(), "after")
    assert inbox.drain(2) == ["before", "after"]


def test_a_reply_slept_upon_is_not_delivered_twice(connect: Connect, client: redis.Redis) -> None:
    sleeper = Inbox(connect(lease=0.4))
    sleeper.drain(1, timeout=0.3)  # now a blocked read is on the wire
    keeper = sleeper.connection.default_channel.keeper
    keeper._stop.set()  # as if the whole process were stopped
    publish(connect(), "once", priority=5)
    wait_until(lambda: client.xpending("jobs", "celery")["pending"] == 1)
    other = Inbox(connect(lease=0.4, stream_group="celery"))
    Entries(client, Group(consumer="other")).reap(["jobs"], 0)
    time.sleep(0.25)  # longer than half the lease
    assert sum(len(inbox.drain(1, timeout=1)) for inbox in (sleeper, other)) == 1


def test_queues_that_expire_leave_nothing(connect: Connect, client: redis.Redis) -> None:
    queue = Queue("reply", Exchange(""), routing_key="reply", expires=0.3)
    connection = connect()
    Producer(connection).publish("x", routing_key="reply", declare=[queue])
    with Consumer(connection, [queue], on_message=lambda message: message.ack()):
        connection.drain_events(timeout=2)
        assert client.exists("reply", "reply:0")
    connection.release()
    wait_until(lambda: not client.exists(*(stream_key("reply", p) for p in range(10))))


def test_a_prefix_is_put_before_every_key(connect: Connect, client: redis.Redis) -> None:
    connection = connect(global_keyprefix="app1.")
    publish(connection, "x", priority=9)
    inbox = Inbox(connection)
    assert inbox.drain(1) == ["x"]
    assert client.xlen("app1.jobs:9") == 1
    inbox.messages[0].ack()
    connection.default_channel.queue_delete("jobs")
    connection.release()
    assert [key for key in client.scan_iter() if not key.startswith("app1.")] == []


def test_a_batch_is_published_at_once(connect: Connect, client: redis.Redis) -> None:
    producer = Producer(connect())
    with producer.batch(100):
        for number in range(5):
            producer.publish(number, routing_key="jobs", priority=5)
        assert client.xlen("jobs") == 0
    assert client.xlen("jobs") == 5


def test_no_thread_and_no_connection_is_left(connect: Connect, client: redis.Redis) -> None:
    before = len(client.client_list())
    connection = connect()
    publish(connection, "x")
    Inbox(connection).drain(1)
    assert "redisstream-lease" in [thread.name for thread in threading.enumerate()]
    connection.release()
    assert "redisstream-lease" not in [thread.name for thread in threading.enumerate()]
    wait_until(lambda: len(client.client_list()) == before)


def test_a_cancelled_consumer_leaves_no_thread_although_its_connection_stays(
    connect: Connect, client: redis.Redis
) -> None:
    inbox = Inbox(connect(), no_ack=True)
    publish(inbox.connection, "x")
    inbox.drain(1)
    inbox.consumer.cancel()
    assert "redisstream-lease" not in [thread.name for thread in threading.enumerate()]
    assert (client.xlen("jobs"), client.xinfo_consumers("jobs", "celery")) == (0, [])
    publish(inbox.connection, "y")
    inbox.consumer.consume()
    assert inbox.drain(2) == ["x", "y"]


def test_closing_without_a_server_leaves_no_thread(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    connection = Connection(server.broker, transport_options={"lease": 1.0})
    publish(connection, "x", "y")
    inbox = Inbox(connection, prefetch=1)
    assert inbox.drain(1) == ["x"]
    server.kill()
    connection.release()
    assert "redisstream-lease" not in [thread.name for thread in threading.enumerate()]


def test_the_encoder_is_fast() -> None:
    headers = {name: str(uuid4()) for name in ("task", "id", "root_id", "origin", "argsrepr")}
    begin = time.process_time()
    for _ in range(1000):
        encode_message(b'[[],{"task_id":"x"},{}]', queue="jobs", headers=headers, correlation_id="c")
    assert time.process_time() - begin < 0.2  # the target is 30 us each; shared machines are slow
