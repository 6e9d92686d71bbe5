"""The asyncio pool in real workers: Celery's autoscaler, its ways to stop, and a broker that goes away."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.field import LEASE, NAP, SYNC_NAP, Field
from tests.support.servers import Process, RedisServer, celery_command, running_redis, wait_until

pytestmark = pytest.mark.acceptance
STUBBORN, NEST = "tests.support.tasks.stubborn", "tests.support.tasks.nest"


class Yard(Field):
    """Workers with a command line and an environment of their own."""

    def start(self, *args: str, conf: dict[str, Any] | None = None, **env: str) -> Process:
        given = {"TEST_BROKER": self.server.broker, "TEST_OPTIONS": json.dumps({"lease": LEASE})}
        given |= {"TEST_CONF": json.dumps(conf or {}), **env}
        quiet = ("-l", "INFO", "--without-gossip", "--without-mingle")
        worker = self._spawn(celery_command("tests.support.tasks", "worker", *quiet, *args), given, "worker")
        worker.wait_for_log("ready.")
        return worker

    def stats(self) -> dict[str, Any]:
        with self.app.connection() as connection:  # a pooled one may have been cut
            inspect = self.app.control.inspect(timeout=5, limit=1, connection=connection)
            ((_, stats),) = inspect.stats().items()
        return dict(stats)

    def round(self, *names: tuple[str, float]) -> None:
        """Run tasks, and wait until nothing of them is left in the worker."""
        ids = {self.send(name, seconds, time_limit=1) for name, seconds in names}
        wait_until(lambda: self.starts().keys() >= ids)
        self.wait_until_empty()
        wait_until(lambda: self.stats()["pool"]["running"] == 0)


@pytest.fixture
def yard(redis_server: RedisServer, redis_url: str, spawn: Callable[..., Process]) -> Iterator[Yard]:
    yard = Yard(redis_server, spawn)
    yield yard
    yard.close()


@pytest.fixture
def own_yard(tmp_path: Path, spawn: Callable[..., Process]) -> Iterator[Yard]:
    """With a server whose connections the test may cut, those of this process among them."""
    for server in running_redis(tmp_path / "redis"):
        yard = Yard(server, spawn)
        yield yard
        yard.close()


def test_the_autoscaler_grows_and_shrinks_the_pool_around_what_runs(yard: Yard) -> None:
    yard.start("--autoscale", "12,2", AUTOSCALE_KEEPALIVE="0.5")
    long = yard.send(NAP, 6)
    short = {yard.send(NAP, 1) for _ in range(20)}
    wait_until(lambda: len(yard.notes("start")) - len(yard.notes("end")) == 12)
    assert yard.stats()["pool"]["max-concurrency"] == 12
    wait_until(lambda: {note.id for note in yard.notes("end")} == short, 20)
    wait_until(lambda: yard.stats()["pool"]["max-concurrency"] == 2)
    assert yard.stats()["pool"]["running"] == 1
    yard.wait_for("end", 21)
    assert yard.starts() == dict.fromkeys((long, *short), 1)
    again = [yard.send(NAP, 0.1) for _ in range(4)]
    wait_until(lambda: {*again} <= {note.id for note in yard.notes("end")})


@pytest.mark.parametrize("by", [signal.SIGQUIT, signal.SIGTERM])
def test_a_soft_stop_lets_the_short_ones_end(yard: Yard, by: signal.Signals) -> None:
    remap = {"REMAP_SIGTERM": "SIGQUIT"} if by is signal.SIGTERM else {}
    worker = yard.start("-c", "4", conf={"worker_soft_shutdown_timeout": 2.0}, **remap)
    short, long = yard.send(NAP, 1), yard.send(NAP, 60)
    yard.wait_for("start", 2)
    worker.signal(by)
    assert worker.wait() == 0
    assert "Initiating Soft Shutdown" in worker.log
    assert [note.id for note in yard.notes("end")] == [short]
    assert [note.id for note in yard.notes("cancelled")] == [long]
    assert yard.redis.xlen("celery") == 1
    assert yard.redis.xpending("celery", "celery")["pending"] == 0


@pytest.mark.parametrize("name", [SYNC_NAP, STUBBORN])
def test_a_cold_stop_waits_for_nobody(yard: Yard, name: str) -> None:
    worker = yard.start("-c", "4")
    yard.send(name, 60)
    yard.wait_for("start", 1)
    begin = time.monotonic()
    worker.signal(signal.SIGQUIT)
    assert worker.wait(20) == 0
    assert time.monotonic() - begin < 15
    assert yard.redis.xlen("celery") == 1
    assert yard.redis.xpending("celery", "celery")["pending"] == 0


def test_a_lost_connection_keeps_those_that_are_aside(own_yard: Yard) -> None:
    worker = own_yard.start("-c", "1")
    for number in (2, 4, 6):
        own_yard.send(NEST, 1, 1.0)
        own_yard.wait_for("start", number)  # the child has the slot
        own_yard.redis.client_kill_filter(_type="normal", skipme=True)
        own_yard.redis.client_kill_filter(_type="pubsub", skipme=True)
    own_yard.wait_for("end", 6)
    assert worker.log.count("Connection to broker lost") >= 1
    own_yard.wait_until_empty()
    assert set(own_yard.starts().values()) == {1}
    stats = own_yard.stats()
    assert (stats["prefetch_count"], stats["pool"]["aside"]) == (1, 0)


def test_a_worker_keeps_nothing_of_the_tasks_it_has_run(yard: Yard) -> None:
    worker = yard.start("-c", "50")
    process = psutil.Process(worker.pid)
    opened = []
    for _ in range(3):
        yard.round(*[(NAP, 0.01), (SYNC_NAP, 0.2), (NAP, 30)] * 20)
        opened.append((process.num_threads(), process.num_fds()))
    assert opened[1][0] == opened[2][0]
    assert opened[2][1] - opened[1][1] <= 3  # connections of the tasks themselves come and go
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
