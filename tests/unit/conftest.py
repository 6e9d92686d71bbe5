"""A field for real Celery workers on transport and pool, and a Hermes over Redis without any worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from hermes_async.core.hermes import Hermes
from tests.support.echoing import hermes_over
from tests.support.field import Field
from tests.support.servers import Process, RedisServer


@pytest.fixture
def field(redis_server: RedisServer, redis_url: str, spawn: Callable[..., Process]) -> Iterator[Field]:
    field = Field(redis_server, spawn)
    yield field
    field.close()


@pytest.fixture
async def hermes(redis_url: str, anyio_backend: str) -> AsyncIterator[Hermes]:
    made = hermes_over(redis_url)
    yield made
    await made.close()
