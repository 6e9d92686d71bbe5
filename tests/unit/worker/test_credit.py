"""Tasks that wait for tasks in a worker with one slot: the broker must go on delivering."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from celery import Celery

from tests.support.field import Field
from tests.support.rabbitmq import reachable_rabbitmq
from tests.support.servers import Process, RedisServer, celery_command, wait_until

pytestmark = pytest.mark.acceptance

NEST, NAP = "tests.support.tasks.nest", "tests.support.tasks.nap"


class Broker(Field):
    """A worker with one slot over any broker."""

    def __init__(self, url: str, server: RedisServer, spawn: Callable[..., Process]) -> None:
        super().__init__(server, spawn)
        self.queue = f"test-{uuid4().hex[:8]}"
        self.app = Celery("publisher", broker=url, set_as_current=False)
        self.app.conf.update(task_ignore_result=True, task_default_queue=self.queue)
        env = {"TEST_BROKER": url, "TEST_NOTES": server.url, "TEST_QUEUE": self.queue}
        args = ["worker", "-l", "INFO", "-c", "1", "--without-mingle", "--without-gossip"]
        self.process = spawn(celery_command("tests.support.tasks", *args), env, "worker")
        self.process.wait_for_log("ready.")

    def prefetch(self) -> int:
        """What the consumer believes, without the jobs that are aside."""
        with self.app.connection() as connection:  # another test may have cut a pooled one
            inspect = self.app.control.inspect(timeout=5, limit=1, connection=connection)
            ((_, stats),) = inspect.stats().items()
        return int(stats["prefetch_count"])

    def close(self) -> None:
        with self.app.connection() as connection:
            self.app.amqp.queues[self.queue](connection.default_channel).delete()
        super().close()


@pytest.fixture(params=["streams", "lists", "amqp"])
def broker(
    request: pytest.FixtureRequest, redis_server: RedisServer, redis_url: str, spawn: Callable[..., Process]
) -> Iterator[Broker]:
    urls = {
        "streams": lambda: redis_server.broker,
        "lists": lambda: redis_server.url,
        "amqp": reachable_rabbitmq,
    }
    broker = Broker(urls[request.param](), redis_server, spawn)
    yield broker
    broker.close()


def test_a_worker_with_one_slot_runs_tasks_that_wait_for_tasks(broker: Broker) -> None:
    broker.send(NEST, 4)
    broker.send(NEST, 4)
    broker.wait_for("end", 10)
    assert set(broker.starts().values()) == {1}
    assert broker.prefetch() == 1
    first, second = (broker.send(NAP, 0.5) for _ in range(2))
    broker.wait_for("end", 12)
    notes = [note for note in broker.notes("start") + broker.notes("end") if note.id in (first, second)]
    kinds = [note.what for note in sorted(notes, key=lambda note: note.at)]
    assert kinds == ["start", "end"] * 2
    assert wait_until(lambda: broker.process.alive)
