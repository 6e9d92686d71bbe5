"""A client of the server, connections that are closed after the test, and a field with a server to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from tests.support.field import Field
from tests.support.inbox import Connect
from tests.support.servers import Process, RedisServer, running_redis


@pytest.fixture
def client(redis_server: RedisServer, redis_url: str) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def connect(redis_server: RedisServer, redis_url: str) -> Iterator[Connect]:
    """Open a connection with a short lease; options are the transport's."""
    connections = []

    def open_connection(url: str = "", **options: Any) -> Connection:
        connection = Connection(url or redis_server.broker, transport_options={"lease": 1.0, **options})
        connections.append(connection)
        return connection

    yield open_connection
    for connection in connections:
        connection.release()


@pytest.fixture
def own_field(tmp_path: Path, spawn: Callable[..., Process]) -> Iterator[Field]:
    """With a server that the test may break."""
    for server in running_redis(tmp_path / "redis", aof=True):
        field = Field(server, spawn)
        yield field
        field.close()
