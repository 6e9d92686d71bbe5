"""What every queue must do: the id arrives, the most urgent first, and a cancel is heard by all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import kombu
import pytest
from kombu.pidbox import Mailbox

from hermes_async.adapters import celery_queue
from hermes_async.adapters.celery_queue import CeleryQueue, declared_queue, queue_name, transport_url
from hermes_async.adapters.memory import MemoryQueue
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.domain.task import Address, Lane, Task
from tests.support.rabbitmq import reachable_rabbitmq
from tests.support.servers import wait_until
from tests.support.values import make_task

pytestmark = pytest.mark.anyio
KINDS = ["parcel", "streams", "lists", "amqp"]


class MemoryWire:
    """The queue in this process, and its only reader."""

    def __init__(self) -> None:
        self.queue = MemoryQueue()
        self.revoked: list[tuple[str, bool]] = []
        self.queue.on_revoke(lambda task_id, force: self.revoked.append((task_id, force)))

    async def send(self, task: Task) -> None:
        assert self.queue.parcel(task) is None
        await self.queue.publish_all([task])

    async def receive(self) -> str:
        return await asyncio.wait_for(self.queue.get(), 5)

    async def revoke(self, *task_ids: str, force: bool) -> list[tuple[str, bool]]:
        await self.queue.revoke(task_ids, force=force)
        return self.revoked

    async def close(self) -> None:
        await self.queue.close()


@dataclass
class Received:
    """A message as a stock kombu consumer sees it."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    raw: str


class CeleryWire:
    """The queue over a broker, and a stock kombu consumer at the other end."""

    def __init__(self, url: str, state_url: str | None) -> None:
        self.store = RedisStore(state_url) if state_url else None
        self.queue = CeleryQueue(url, shares_store=state_url is not None)
        self.reader = kombu.Connection(transport_url(url))
        self.got: list[Received] = []
        self.heard: list[dict[str, Any]] = []
        self.consumer: kombu.Consumer | None = None

    async def send(self, task: Task) -> None:
        parcel = self.queue.parcel(task)
        assert (parcel is None) == (self.store is None)
        if self.store is None:
            await self.queue.publish_all([task])
        else:
            await self.store.create(task, parcel, None)

    async def receive(self) -> str:
        return str((await self.message()).headers["id"])

    async def message(self, lane: Lane = Lane.ASYNC) -> Received:
        await asyncio.to_thread(self._drain, lane)
        return self.got.pop(0)

    async def revoke(self, *task_ids: str, force: bool) -> list[tuple[str, bool]]:
        node = Mailbox("celery", type="fanout", accept=["json"])(self.reader).Node(
            "reader@test",
            channel=self.reader.default_channel,
            handlers={"revoke": lambda state, **arguments: self.heard.append(arguments)},
        )
        consumer = node.listen()
        listening = asyncio.create_task(asyncio.to_thread(self._listen, list(task_ids)))
        await asyncio.to_thread(self._subscribed)
        await self.queue.revoke(task_ids, force=force)
        await listening
        consumer.cancel()
        assert all(each["terminate"] is True for each in self.heard)
        (mine,) = (each for each in self.heard if each["task_id"] == list(task_ids))  # one broadcast for all
        return [(task_id, mine["signal"] == "SIGKILL") for task_id in task_ids]

    async def close(self) -> None:
        await self.queue.close()
        if self.store:
            await self.store.close()
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        """Leave no queue on a server that is not the test's own."""
        if self.consumer is not None:
            self.consumer.cancel()
            with suppress(*self.reader.channel_errors):
                for queue in self.consumer.queues:
                    queue(self.reader.default_channel).delete(if_unused=True, if_empty=True)
        self.reader.close()

    def _drain(self, lane: Lane) -> None:
        if self.consumer is None:
            channel = self.reader.channel()
            self.consumer = kombu.Consumer(
                channel, [declared_queue(lane)], callbacks=[self._take], accept=["json"], prefetch_count=1
            )
            self.consumer.consume()
        while not self.got:
            self.reader.drain_events(timeout=5)

    def _take(self, body: Any, message: kombu.Message) -> None:
        raw = message.body if isinstance(message.body, str) else message.body.decode()
        self.got.append(Received(dict(message.headers), dict(message.properties), body, raw))
        message.ack()

    def _listen(self, task_ids: list[str]) -> None:
        for _ in range(100):
            if any(each["task_id"] == task_ids for each in self.heard):
                return
            try:
                self.reader.drain_events(timeout=0.1)
            except TimeoutError:
                continue

    def _subscribed(self) -> None:
        """Redis' fanout begins with the first drain; RabbitMQ's with the consumer."""
        client = getattr(self.reader.default_channel, "client", None)
        if client is not None:
            wait_until(lambda: client.pubsub_channels("*pidbox*") or client.pubsub_numpat())


def make_wire(kind: str, request: pytest.FixtureRequest) -> CeleryWire:
    if kind == "amqp":
        return CeleryWire(reachable_rabbitmq(), None)
    url = request.getfixturevalue("redis_url")
    if kind == "lists":
        return CeleryWire(url.replace("redis://", "redis+list://"), None)
    return CeleryWire(url, url if kind == "parcel" else None)


@pytest.fixture(autouse=True)
def _own_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ is not the test's own: others may serve the real queues there."""
    prefix = f"hermes-test-{uuid4().hex}"
    monkeypatch.setattr(celery_queue, "queue_name", lambda lane, namespace: f"{prefix}.{lane}")


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[CeleryWire]:
    made = make_wire(request.param, request)
    yield made
    await made.close()


@pytest.fixture(params=["memory", *KINDS])
async def wire(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[CeleryWire | MemoryWire]:
    made = MemoryWire() if request.param == "memory" else make_wire(request.param, request)
    yield made
    await made.close()


# -- every queue -----------------------------------------------------------------------------------------
async def test_a_queue_that_is_there_answers_a_ping(wire: CeleryWire | MemoryWire) -> None:
    await wire.queue.ping()


async def test_what_is_sent_arrives_in_order(wire: CeleryWire | MemoryWire) -> None:
    tasks = [make_task() for _ in range(5)]
    for task in tasks:
        await wire.send(task)
    assert [await wire.receive() for _ in tasks] == [task.id for task in tasks]


async def test_the_most_urgent_comes_first(wire: CeleryWire | MemoryWire) -> None:
    """With RabbitMQ and with lists, which have four levels, what is far apart."""
    sent = {priority: make_task(options={"priority": priority}) for priority in (5, 0, 9)}
    for task in sent.values():
        await wire.send(task)
    assert [await wire.receive() for _ in sent] == [sent[priority].id for priority in (9, 5, 0)]


async def test_many_are_published_in_one_go(wire: CeleryWire | MemoryWire) -> None:
    tasks = [make_task() for _ in range(50)]
    await wire.queue.publish_all(tasks)
    await wire.queue.publish_all([])
    assert [await wire.receive() for _ in tasks] == [task.id for task in tasks]


@pytest.mark.parametrize("force", [False, True])
async def test_a_cancel_reaches_every_worker(wire: CeleryWire | MemoryWire, force: bool) -> None:
    ids = [make_task().id for _ in range(2)]
    assert await wire.revoke(*ids, force=force) == [(task_id, force) for task_id in ids]


# -- Celery's message ------------------------------------------------------------------------------------
async def test_a_message_is_celery_s_and_carries_nothing_of_the_input(broker: CeleryWire) -> None:
    secret = "the input is nobody's business"
    task = make_task(input={"text": secret}, options={"timeout": 7.0, "priority": 8})
    await broker.send(task)
    message = await broker.message()
    headers = message.headers
    assert (headers["task"], headers["id"], headers["lang"]) == ("hermes.echo", task.id, "py")
    assert headers["traceparent"] == task.birth.traceparent
    assert (headers["root_id"], headers["parent_id"]) == (task.id, None)
    assert list(headers["timelimit"]) == [17.0, None]
    assert headers["retries"] == 0
    assert not {"eta", "expires", "group", "shadow"} & headers.keys()  # None of each is what Celery reads
    assert headers["ignore_result"] is True
    assert message.properties["correlation_id"] == task.id
    assert message.body == [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    assert secret not in message.raw + json.dumps(headers) + json.dumps(message.properties)
    assert not broker.got


async def test_a_child_names_its_parent_and_root(broker: CeleryWire) -> None:
    parent = make_task()
    if broker.store:  # which takes no child of a task that does not run
        await broker.store.create(parent, None, None)
        assert await broker.store.claim(parent.id, "w1", 60.0)
    task = make_task(parent_task_id=parent.id, parent_attempt=1)
    birth = task.birth.model_copy(update={"root_task_id": "t00-r"})
    await broker.send(task.model_copy(update={"birth": birth}))
    headers = (await broker.message()).headers
    assert (headers["parent_id"], headers["root_id"]) == (parent.id, "t00-r")


async def test_a_def_waits_in_the_other_lane_with_a_soft_limit(broker: CeleryWire) -> None:
    task = make_task(options={"timeout": 7.0})
    birth = task.birth.model_copy(update={"to": Address(lane=Lane.PROCESS)})
    await broker.send(task.model_copy(update={"birth": birth}))
    message = await broker.message(Lane.PROCESS)
    assert list(message.headers["timelimit"]) == [17.0, 7.0]
    assert queue_name(Lane.PROCESS) == "hermes.process"


async def test_without_a_timeout_there_is_no_limit(broker: CeleryWire) -> None:
    await broker.send(make_task(options={"timeout": None}))
    assert list((await broker.message()).headers["timelimit"]) == [None, None]
