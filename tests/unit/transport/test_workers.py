"""Real Celery workers over the transport: limits, priorities, and what happens when things are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from celery import Celery

import hermes_async.transport.streams  # noqa: F401  (registers redisstream://)
from tests.support.servers import Process, RedisServer, celery_command, running_redis, wait_until

pytestmark = pytest.mark.acceptance

NAP, SYNC_NAP = "tests.support.tasks.nap", "tests.support.tasks.sync_nap"
LEASE = 2.0


class Note(NamedTuple):
    """What a task has written down."""

    what: str
    id: str
    at: float
    pid: int


class Field:
    """A broker, an app that publishes, and the workers of one test."""

    def __init__(self, server: RedisServer, spawn: Callable[..., Process]) -> None:
        self.server = server
        self.redis = server.client()
        self.app = Celery("publisher", broker=server.broker, set_as_current=False)
        self.app.conf.task_ignore_result = True
        self._spawn = spawn

    def worker(self, slots: int = 10, pool: str = "", **options: Any) -> Process:
        env = {"TEST_BROKER": self.server.broker, "TEST_OPTIONS": json.dumps({"lease": LEASE, **options})}
        if pool:
            env["TEST_POOL"] = pool
        args = [
            "worker",
            "-l",
            "INFO",
            "-c",
            str(slots),
            "-n",
            f"w{os.urandom(3).hex()}@%h",
            "--without-mingle",
        ]
        return self._spawn(celery_command("tests.support.tasks", *args, "--without-gossip"), env, "worker")

    def ready(self, *args: Any, **options: Any) -> Process:
        worker = self.worker(*args, **options)
        worker.wait_for_log("ready.")
        return worker

    def send(self, name: str, *args: Any, **options: Any) -> str:
        return str(self.app.send_task(name, args, **{"priority": 5, **options}).id)

    def notes(self, what: str) -> list[Note]:
        notes = (Note(*json.loads(line)) for line in self.redis.lrange("notes", 0, -1))
        return [note for note in notes if note.what == what]

    def wait_for(self, what: str, count: int, timeout: float = 15.0) -> list[Note]:
        wait_until(lambda: len(self.notes(what)) >= count, timeout)
        return self.notes(what)

    def starts(self) -> Counter[str]:
        return Counter(note.id for note in self.notes("start"))

    def wait_until_empty(self) -> None:
        keys = [f"celery{suffix}" for suffix in ("", *(f":{p}" for p in range(10)))]
        wait_until(lambda: sum(self.redis.xlen(key) for key in keys) == 0)

    def close(self) -> None:
        self.app.close()
        self.redis.close()


@pytest.fixture
def field(redis_server: RedisServer, redis_url: str, spawn: Callable[..., Process]) -> Iterator[Field]:
    field = Field(redis_server, spawn)
    yield field
    field.close()


@pytest.fixture
def own_field(tmp_path: Path, spawn: Callable[..., Process]) -> Iterator[Field]:
    """With a server that the test may break."""
    for server in running_redis(tmp_path / "redis", aof=True):
        field = Field(server, spawn)
        yield field
        field.close()


def test_three_hundred_coroutines_wait_together_and_limits_hold(field: Field) -> None:
    field.ready(310)
    published = {field.send(NAP, 1.0): time.time() for _ in range(300)}
    soft = field.send(NAP, 30, soft_time_limit=0.3, time_limit=30)
    hard = field.send(NAP, 30, time_limit=1)
    doomed = field.send(NAP, 30)
    field.wait_for("start", 303)
    field.app.control.revoke(doomed, terminate=True)
    ends = field.wait_for("end", 300)
    assert max(note.at - published[note.id] for note in ends) < 4
    assert max(note.at - published[note.id] for note in field.notes("start") if note.id in published) < 3
    assert [note.id for note in field.wait_for("soft", 1)] == [soft]
    assert {note.id for note in field.wait_for("cancelled", 2)} == {hard, doomed}
    assert field.app.control.ping(timeout=1, limit=1)[0]
    field.wait_until_empty()
    assert max(field.starts().values()) == 1


def test_prefork_runs_dead_letters_poison_and_stops_warmly(field: Field) -> None:
    worker = field.ready(2, pool="prefork", max_deliveries=1)
    poison = field.send("tests.support.tasks.kill_child")
    ids = {field.send(SYNC_NAP, 0.1) for _ in range(4)}
    field.wait_for("end", 4)
    wait_until(lambda: field.redis.xlen("celery.dead") == 1, 20)
    assert field.starts()[poison] == 1
    last = field.send(SYNC_NAP, 1)
    wait_until(lambda: field.starts()[last])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert {note.id for note in field.notes("end")} == {*ids, last}
    field.wait_until_empty()


def test_nine_is_first_and_a_warm_stop_finishes_what_runs(field: Field) -> None:
    ids = {field.send(NAP, 0.02, priority=priority): priority for priority in (0, 5, 9, 3, 9, 5)}
    worker = field.ready(1)
    field.wait_for("end", 6)
    assert [ids[note.id] for note in field.notes("start")] == [9, 9, 5, 5, 3, 0]
    running, waiting = field.send(NAP, 1), field.send(NAP, 1)
    wait_until(lambda: field.starts()[running])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.log
    assert running in {note.id for note in field.notes("end")}
    assert not field.starts()[waiting]
    assert field.redis.xlen("celery") == 1
    assert field.redis.xinfo_consumers("celery", "celery") == []


def test_a_killed_workers_tasks_run_again_within_the_lease(field: Field) -> None:
    first = field.ready(4)
    ids = {field.send(NAP, 3) for _ in range(4)}
    field.wait_for("start", 4)
    first.kill()
    killed = time.time()
    field.ready(4)
    restarts = [note for note in field.wait_for("start", 8) if note.at > killed]
    assert {note.id for note in restarts} == ids
    assert max(note.at for note in restarts) - killed < 2 * LEASE + 2
    field.wait_for("end", 4)  # three seconds are longer than the lease
    field.wait_until_empty()
    assert set(field.starts().values()) == {2}


def test_a_cold_stop_hands_the_tasks_on_even_after_a_warm_one(field: Field) -> None:
    worker = field.ready(4)
    task = field.send(NAP, 20)
    field.wait_for("start", 1)
    worker.signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    worker.signal(signal.SIGQUIT)
    worker.wait()
    assert [note.id for note in field.notes("cancelled")] == [task]
    assert field.redis.xlen("celery") == 1
    assert field.redis.xpending("celery", "celery")["pending"] == 0


def test_a_connection_blip_duplicates_nothing(field: Field) -> None:
    worker = field.ready(10)
    ids = {field.send(NAP, LEASE + 1) for _ in range(8)}
    field.wait_for("start", 8)
    for kind in ("normal", "pubsub"):
        field.redis.client_kill_filter(_type=kind, skipme=True)
    worker.wait_for_log("Connection to broker lost")
    field.wait_for("end", 8)
    last = field.send(NAP, 0)
    wait_until(lambda: field.starts()[last])
    field.wait_until_empty()
    assert set(field.starts().values()) == {1}
    assert set(field.starts()) == {*ids, last}


def test_flushall_is_survived(field: Field) -> None:
    field.ready(4)
    field.send(NAP, 0)
    field.wait_for("end", 1)
    field.redis.flushall()
    again = field.send(NAP, 0)
    wait_until(lambda: field.starts()[again])
    field.wait_for("end", 1)


def test_a_coroutine_that_always_exits_ends_in_the_dead_letters(field: Field) -> None:
    worker = field.ready(4, max_deliveries=3)
    poison = field.send("tests.support.tasks.exit_worker")
    wait_until(lambda: field.redis.xlen("celery.dead") == 1)
    assert field.starts()[poison] == 3
    assert worker.alive


def test_nothing_is_lost_when_the_server_restarts(own_field: Field) -> None:
    own_field.ready(4)
    ids = {own_field.send(NAP, 1.5) for _ in range(8)}
    own_field.wait_for("start", 4)
    own_field.server.restart()
    wait_until(lambda: answers(own_field.redis))
    ends = own_field.wait_for("end", 8, timeout=20)
    assert {note.id for note in ends} == ids


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
