"""The stores and queues that must behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.ports import Store

#: Makes a store; its argument is how many events of a session are kept.
MakeStore = Callable[..., Store]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "redis"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    if request.param == "memory":
        return lambda length=10_000: MemoryStore(max_length=length)
    url = request.getfixturevalue("redis_url")
    return lambda length=10_000: RedisStore(url, log_length=length)


@pytest.fixture
async def store(make_store: MakeStore, anyio_backend: str) -> AsyncIterator[Store]:
    async with closing(make_store()) as made:
        yield made


@asynccontextmanager
async def closing(store: Store) -> AsyncIterator[Store]:
    try:
        yield store
    finally:
        await store.close()
