"""A field for tests of the transport and of the pool with real Celery workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.field import Field
from tests.support.servers import Process, RedisServer


@pytest.fixture
def field(redis_server: RedisServer, redis_url: str, spawn: Callable[..., Process]) -> Iterator[Field]:
    field = Field(redis_server, spawn)
    yield field
    field.close()
