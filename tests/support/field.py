"""A broker, an app that publishes, and the workers of one test."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from celery import Celery
from kombu import pools

import hermes_async.transport.streams  # noqa: F401  (registers redisstream://)
from tests.support.servers import Process, RedisServer, celery_command, wait_until

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

    def __init__(self, server: RedisServer, spawn: Callable[..., Process], **options: Any) -> None:
        self.server = server
        #: Where the workers find it.
        self.broker = server.broker
        self.redis = server.client()
        self.app = Celery("publisher", broker=server.broker, set_as_current=False)
        self.app.conf.update(task_ignore_result=True, broker_transport_options=options)
        self._options = options
        self._spawn = spawn

    def worker(self, slots: int = 10, pool: str = "", **options: Any) -> Process:
        options = {"lease": LEASE, **self._options, **options}
        env = {"TEST_BROKER": self.broker, "TEST_OPTIONS": json.dumps(options)}
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

    def celery(self, *args: str) -> str:
        """What Celery's command line prints."""
        command = celery_command("tests.support.tasks", *args)
        process = self._spawn(command, {"TEST_BROKER": self.server.broker})
        assert process.wait(20) == 0, process.log
        return process.log

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
        pools.reset()  # kombu keeps connections by URL, and this broker may lose them before the next test
        self.redis.close()
