"""Fixtures for every test: a private Redis, and processes that do not outlive the test."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.servers import Process, RedisServer, running_redis


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Let a test on an event loop that takes too long end the run, with all stacks.

    A signal interrupts the loop, not the test: the teardown of its async fixtures would wait for it for ever.
    """
    for item in items:
        if item.get_closest_marker("anyio"):
            own = item.get_closest_marker("timeout") or pytest.mark.timeout().mark
            limit = pytest.mark.timeout(*own.args, **{**own.kwargs, "method": "thread"})
            item.add_marker(limit, append=False)


@pytest.fixture
def anyio_backend() -> str:
    """The only event loop that Celery's worker, redis-py and the relay know."""
    return "asyncio"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Take back what a command of this process has made of the log: its stderr is closed soon."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in [each for each in root.handlers if type(each) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the session; tests that break their server start one with `RedisServer`."""
    yield from running_redis(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty database."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a process in its own session; everything it started is killed after the test."""
    started: list[Process] = []
    number = itertools.count(1)

    def run(args: Sequence[str], env: Mapping[str, str] | None = None, name: str = "process") -> Process:
        process = Process(args, tmp_path / f"{name}-{next(number)}.log", env)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
