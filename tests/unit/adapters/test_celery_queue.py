"""The queue over kombu: URLs, limits, and a broker that does not answer."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from functools import partial

import pytest

from hermes_async.adapters.celery_queue import (
    CLASSIC,
    CONSUMER_TIMEOUT,
    CeleryQueue,
    queue_arguments,
    time_limits,
    transport_url,
)
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.errors import QueueUnavailable
from hermes_async.domain.task import Lane
from tests.support.rabbitmq import reachable_rabbitmq
from tests.support.servers import free_port
from tests.support.silent import silent_server
from tests.support.values import make_task

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("ours", "kombu_s"),
    [
        ("redis://h:1/0", "redisstream://h:1/0"),
        ("redisstream://h:1/0", "redisstream://h:1/0"),
        ("rediss://h:1/0", "redisstreams://h:1/0"),
        ("unix:///run/redis.sock?db=5", "redisstream+socket:///run/redis.sock?virtual_host=5"),
        ("redis+list://h:1/0", "redis://h:1/0"),
        ("rediss+list://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("rediss+list://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none"),
        ("rediss+list://h:1/0?ssl_ca_certs=f", "rediss://h:1/0?ssl_ca_certs=f&ssl_cert_reqs=required"),
        ("unix+list:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("redis://:a;b@h:1/0", "redisstream://:a%3Bb@h:1/0"),
        ("amqp://h//", "amqp://h//"),
    ],
)
def test_a_url_names_its_transport(ours: str, kombu_s: str) -> None:
    assert transport_url(ours) == kombu_s


@pytest.mark.parametrize(
    ("lane", "timeout", "limits"),
    [
        (Lane.ASYNC, 5.0, (15.0, None)),
        (Lane.PROCESS, 5.0, (15.0, 5.0)),
        (Lane.PROCESS, None, (None, None)),
    ],
)
def test_celery_s_limits_lie_behind_ours(lane: Lane, timeout: float | None, limits: object) -> None:
    assert time_limits(lane, SubagentSpec(id="x", timeout=timeout)) == limits


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.5", "4.2.1-rc.1"])
def test_rabbitmq_is_asked_for_the_time_that_a_task_may_take(version: str) -> None:
    assert queue_arguments(version) == {**CLASSIC, **CONSUMER_TIMEOUT}


@pytest.mark.parametrize("version", ["4.3.0", "4.3.6", "4.10.0", "5.0.0", "", "?"])
def test_who_knows_no_such_limit_is_not_asked(version: str) -> None:
    """RabbitMQ 4.3 refuses the whole queue, Redis tells no version."""
    assert queue_arguments(version) == CLASSIC


@pytest.mark.parametrize("scheme", ["redis", "redis+list", "amqp"])
async def test_only_a_broker_in_the_store_takes_parcels(scheme: str) -> None:
    queue = CeleryQueue(f"{scheme}://127.0.0.1:1/0", shares_store=True)
    assert (queue.parcel(make_task()) is not None) == (scheme == "redis")
    apart = CeleryQueue(f"{scheme}://127.0.0.1:1/0", shares_store=False)
    assert apart.parcel(make_task()) is None


async def test_the_stream_of_a_parcel_names_lane_and_priority() -> None:
    queue = CeleryQueue("redis://127.0.0.1:1/0", shares_store=True)
    parcels = [queue.parcel(make_task(options={"priority": priority})) for priority in (5, 9)]
    assert [parcel.key for parcel in parcels if parcel] == ["hermes.async", "hermes.async:9"]


async def test_two_projects_have_queues_of_their_own() -> None:
    task, made = make_task(), []
    for namespace in ("shop", "hermes"):
        queue = CeleryQueue("redis://127.0.0.1:1/0", shares_store=True, namespace=namespace)
        parcel = queue.parcel(task)
        assert parcel is not None
        made.append((parcel.key, json.loads(parcel.body)["properties"]["delivery_info"]["routing_key"]))
    assert made == [("shop.async", "shop.async"), ("hermes.async", "hermes.async")]


@pytest.mark.parametrize("scheme", ["redis", "redis+list", "amqp"])
async def test_a_broker_that_is_not_there_is_told_without_its_password(scheme: str) -> None:
    port = free_port()
    queue = CeleryQueue(f"{scheme}://user:secret@127.0.0.1:{port}/0", shares_store=False)
    began = time.monotonic()
    with pytest.raises(QueueUnavailable) as told:
        await queue.publish_all([make_task()])
    assert f"the broker at {scheme}://***@127.0.0.1:{port}/0 does not work" in str(told.value)
    assert "secret" not in str(told.value)
    assert time.monotonic() - began < 3
    await queue.close()


@pytest.mark.parametrize(
    ("login", "host", "refusal"),
    [("guest:wrong", "", "ACCESS_REFUSED"), ("guest:guest", "no-such-host", "NOT_ALLOWED|not found")],
)
async def test_a_broker_that_refuses_us_is_told(login: str, host: str, refusal: str) -> None:
    address = reachable_rabbitmq().partition("@")[2]
    queue = CeleryQueue(f"amqp://{login}@{address}{host}", shares_store=False)
    for ask in (queue.ping, partial(queue.publish_all, [make_task()])):
        with pytest.raises(QueueUnavailable, match=refusal):
            await ask()
    await queue.close()


async def test_a_cancel_that_cannot_be_broadcast_is_noted_and_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = CeleryQueue(f"redis://127.0.0.1:{free_port()}/0", shares_store=False)
    with caplog.at_level(logging.WARNING, "hermes.queue"):
        await queue.revoke(["t00-x", "t00-y"], force=True)
    assert "the cancel of t00-x, t00-y is not broadcast" in caplog.text
    await queue.close()


async def test_a_silent_broker_is_told_in_time() -> None:
    async with silent_server() as port:
        queue = CeleryQueue(f"redis://127.0.0.1:{port}/0", shares_store=False)
        began = time.monotonic()
        with pytest.raises(QueueUnavailable):
            await queue.publish_all([make_task()])
        assert time.monotonic() - began < 6
        await queue.close()


async def test_publishing_leaves_the_loop_free_and_no_thread_behind(redis_url: str) -> None:
    before = set(threading.enumerate())
    queue = CeleryQueue(redis_url, shares_store=False)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(queue.publish_all([make_task()]) for _ in range(20)))
    ticking.cancel()
    assert ticks > 4  # a loop that is blocked by each publish ticks once or twice in all
    await queue.close()
    new = {thread for thread in threading.enumerate() if "AnyIO" not in thread.name} - before
    assert new == set(), new
