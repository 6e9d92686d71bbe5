"""The stage of a benchmark: a private Redis, and workers of both kinds on it."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis

from benchmarks import plain, stamps
from benchmarks.children import Child, free_port
from hermes_async.adapters.embedded_redis.binary import find_server
from hermes_async.domain.agent import NAMESPACE
from hermes_async.domain.task import Lane
from hermes_async.settings import Settings
from hermes_async.worker.command import worker_command

AGENTS = Path(__file__).with_name("agents.yaml")
#: Both kinds of worker log as little.
LOGLEVEL = "WARNING"
NOTHING: Mapping[str, str] = MappingProxyType({})


class Stage:
    """Where figures are measured; everything it starts ends with it."""

    def __init__(self, folder: Path, *, stock: bool = False) -> None:
        self.folder = folder
        self.stock = stock
        self.stamps = folder / "stamps"
        self.server = find_server()
        self.secret = secrets.token_hex(32)
        self._port = free_port()
        self._count = 0
        #: What every process of the benchmark finds in its environment.
        self.env: Mapping[str, str] = {
            "BENCH_REDIS": f"redis://127.0.0.1:{self._port}",
            "BENCH_SECRET": self.secret,
            stamps.VARIABLE: str(self.stamps),
            "HERMES_CONFIG": str(AGENTS),
            "HERMES_STATE_DIR": str(folder / "state"),
            "HERMES_NAMESPACE": NAMESPACE,
            **({"BENCH_STOCK": "1"} if stock else {}),
        }

    @property
    def settings(self) -> Settings:
        """What a parent that uses hermes_async is told."""
        return Settings.read(AGENTS, self.env)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server with the durability that the embedded one has: AOF, synced every second."""
        argv = [str(self.server.path), "--port", str(self._port), "--bind", "127.0.0.1"]
        argv += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        with self.child("redis", argv) as server:
            server.wait_until(self._answers)
            plain.use(self.env)
            yield

    @contextmanager
    def child(self, name: str, argv: list[str], **env: str) -> Iterator[Child]:
        """Run a process for as long as the context lasts."""
        self._count += 1
        child = Child(argv, self.folder / f"{name}-{self._count}.log", {**self.env, **env})
        try:
            yield child
        finally:
            child.kill()

    @contextmanager
    def ours(
        self, *, slots: int, processes: int = 1, lease: float | None = None, env: Mapping[str, str] = NOTHING
    ) -> Iterator[list[Child]]:
        """Run async workers of hermes_async, each with so many slots, and begin when they wait for tasks."""
        env = {**env, **({"HERMES_LEASE": str(lease)} if lease else {})}
        before = self._consumers()
        with ExitStack() as stack:
            workers = [
                stack.enter_context(self.child("hermes-worker", _command(slots), **env))
                for _ in range(processes)
            ]
            workers[-1].wait_until(lambda: self._consumers() >= before + processes)
            yield workers

    @contextmanager
    def plain(self, *, pool: str, concurrency: int) -> Iterator[Child]:
        """Run one worker of plain Celery; whoever measures lets it come up first."""
        if find_spec("gevent") is None and pool == "gevent":
            raise SystemExit("this figure needs gevent: pip install 'hermes_async[bench]'")
        argv = [sys.executable, "-m", "celery", "--app", "benchmarks.plain", "worker", "--pool", pool]
        argv += ["--concurrency", str(concurrency), "--loglevel", LOGLEVEL, "--hostname", "plain@%h"]
        argv += [] if self.stock else plain.FAST_WORKER
        with self.child("plain-worker", argv) as child:
            yield child

    def flush(self) -> None:
        """Empty the server."""
        with self._client() as client:
            client.flushall()

    def info(self) -> dict[str, Any]:
        """Return what the server counts, its commands among it."""
        with self._client() as client:
            found: dict[str, Any] = client.info("all")
            return found

    def _consumers(self) -> int:
        """Return how many async workers of hermes_async wait for a message."""
        with self._client() as client:
            return sum("b" in each["flags"] and each["cmd"] == "xreadgroup" for each in client.client_list())

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self._port, socket_timeout=10)

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _command(slots: int) -> list[str]:
    """Return the argv of a worker; each one has another node name."""
    return worker_command(Lane.ASYNC, concurrency=slots, loglevel=LOGLEVEL)


@contextmanager
def opened(*, stock: bool = False) -> Iterator[Stage]:
    """Yield a stage whose server runs; `stock`: with a plain Celery whose settings nobody has touched."""
    with tempfile.TemporaryDirectory(prefix="hermes-bench-", ignore_cleanup_errors=True) as folder:
        stage = Stage(Path(os.path.realpath(folder)), stock=stock)
        with stage.running():
            yield stage
