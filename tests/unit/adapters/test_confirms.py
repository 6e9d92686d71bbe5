"""What RabbitMQ does not confirm is told as an outage, and does not spoil what follows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import uuid4

import amqp
import pytest
from kombu import Queue

from hermes_async.adapters import celery_queue
from hermes_async.adapters.celery_queue import CeleryQueue
from hermes_async.domain.errors import QueueUnavailable
from tests.support.proxy import Mode, Proxy, proxy_to
from tests.support.rabbitmq import PORT, reachable_rabbitmq
from tests.support.values import make_task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def proxy(anyio_backend: str) -> AsyncIterator[Proxy]:
    reachable_rabbitmq()
    with proxy_to(PORT) as proxy:
        yield proxy


@pytest.fixture
async def queue(proxy: Proxy) -> AsyncIterator[CeleryQueue]:
    queue = CeleryQueue(f"amqp://guest:guest@127.0.0.1:{proxy.port}//", shares_store=False)
    yield queue
    await queue.close()


@pytest.fixture
async def channel(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[amqp.Channel]:
    """An operator's connection; the queue `name` is the test's own."""
    name = f"hermes-test-{uuid4().hex}"
    monkeypatch.setattr(celery_queue, "queue_name", lambda lane, namespace: name)
    with amqp.Connection(f"127.0.0.1:{PORT}") as connection:
        channel = connection.channel()
        channel.name = name
        yield channel
        channel.queue_delete(name)


def count(channel: amqp.Channel) -> int:
    return int(channel.queue_declare(channel.name, passive=True).message_count)


async def test_a_thousand_are_confirmed_together(queue: CeleryQueue, channel: amqp.Channel) -> None:
    await queue.publish_all([make_task()])
    await queue.publish_all([make_task() for _ in range(1000)])
    assert count(channel) == 1001


async def test_a_full_queue_is_told(
    queue: CeleryQueue, channel: amqp.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Queue(channel.name, max_length=1, queue_arguments={"x-overflow": "reject-publish"})
    monkeypatch.setattr(celery_queue, "declared_queue", lambda lane, namespace: full)
    with pytest.raises(QueueUnavailable, match="has refused a message"):
        await queue.publish_all([make_task() for _ in range(3)])
    channel.queue_purge(channel.name)
    await queue.publish_all([make_task()])


async def test_a_queue_that_was_deleted_swallows_nothing(queue: CeleryQueue, channel: amqp.Channel) -> None:
    await queue.publish_all([make_task()])
    channel.queue_delete(channel.name)
    with pytest.raises(QueueUnavailable, match="NO_ROUTE"):
        await queue.publish_all([make_task(), make_task()])
    await queue.publish_all([make_task(), make_task()])
    assert count(channel) == 2


async def test_a_queue_of_another_kind_is_told(queue: CeleryQueue, channel: amqp.Channel) -> None:
    channel.queue_declare(channel.name, durable=True, auto_delete=False)
    with pytest.raises(QueueUnavailable, match="inequivalent arg 'x-max-priority'"):
        await queue.publish_all([make_task()])


async def test_a_connection_that_was_cut_while_idle_costs_nothing(
    queue: CeleryQueue, channel: amqp.Channel, proxy: Proxy
) -> None:
    await queue.publish_all([make_task()])
    proxy.cut()
    await queue.publish_all([make_task()])
    assert count(channel) == 2


async def test_a_silent_rabbitmq_is_told_in_time(
    queue: CeleryQueue, channel: amqp.Channel, proxy: Proxy
) -> None:
    await queue.publish_all([make_task()])
    proxy.set(Mode.DROP)
    began = time.monotonic()
    with pytest.raises(QueueUnavailable):
        await queue.publish_all([make_task()])
    assert time.monotonic() - began < 6
    proxy.set(Mode.HALF_OPEN)
    await queue.publish_all([make_task()])
    assert count(channel) == 2
