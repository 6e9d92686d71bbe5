"""An endpoint that fails is left alone, over all workers, and what waits for it loses no try."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.adapters.webhook import breaker
from hermes_async.adapters.webhook.breaker import SPREAD, THRESHOLD
from hermes_async.adapters.webhook.sender import WebhookSender
from hermes_async.core.callbacks import Dead, Failed, Outcome, PutOff, Succeeded
from hermes_async.core.ports import Store
from hermes_async.domain.task import TaskResult
from tests.support.receiver import Receiver, status
from tests.support.servers import free_port
from tests.unit.adapters.webhook.conftest import knowing, make_call

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Store]:
    memory = request.param == "memory"
    store = MemoryStore() if memory else RedisStore(request.getfixturevalue("redis_url"))
    yield store
    await store.close()


async def sent(store: Store, receiver: Receiver, path: str = "") -> Outcome:
    """A try of a worker of its own."""
    sender = WebhookSender(knowing(f"{receiver.url}{path}"), store.ledger, allow={receiver.place})
    call = make_call()
    return await sender.send(call, TaskResult.of(call.task))


async def test_after_so_many_failures_it_is_left_alone(store: Store, receiver: Receiver) -> None:
    receiver.then(*[status(500)] * THRESHOLD)
    assert {type(await sent(store, receiver)) for _ in range(THRESHOLD)} == {Failed}
    outcome = await sent(store, receiver, "?the-query-makes-no-other-endpoint")
    assert isinstance(outcome, PutOff)
    assert 50 < outcome.delay < breaker.PAUSE * (1 + SPREAD)
    assert len(receiver.posts) == THRESHOLD
    assert isinstance(await sent(store, receiver, "/another"), Succeeded)


async def test_one_success_begins_the_count_anew(store: Store, receiver: Receiver) -> None:
    for _ in range(2):
        receiver.then(*[status(500)] * (THRESHOLD - 1), status(204))
        for _ in range(THRESHOLD - 1):
            assert isinstance(await sent(store, receiver), Failed)
        assert isinstance(await sent(store, receiver), Succeeded)


async def test_what_is_unwanted_or_refused_says_nothing(store: Store, receiver: Receiver) -> None:
    receiver.then(*[status(410)] * THRESHOLD)
    for _ in range(THRESHOLD):
        assert isinstance(await sent(store, receiver), Dead)
    assert isinstance(await sent(store, receiver), Succeeded)


async def test_without_the_store_it_is_tried(receiver: Receiver) -> None:
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0")
    assert isinstance(await sent(store, receiver), Succeeded)
    await store.close()
