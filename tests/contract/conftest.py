"""The stores and queues that must behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.ports import Store
from hermes_async.domain.agent import NO_LIMITS, GateLimits

#: Makes a store; it may be told how many events of a session are kept, and the limits of the project.
MakeStore = Callable[..., Store]


@pytest.fixture(params=["memory", "redis"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    def in_memory(length: int = 10_000, limits: GateLimits = NO_LIMITS) -> Store:
        return MemoryStore(max_length=length, limits=limits)

    def over_redis(length: int = 10_000, limits: GateLimits = NO_LIMITS) -> Store:
        return RedisStore(request.getfixturevalue("redis_url"), log_length=length, limits=limits)

    return in_memory if request.param == "memory" else over_redis


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
