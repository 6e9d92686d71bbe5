"""A small Celery app for the tests of the transport and the pool; every start is noted in Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress

import redis
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery
from celery.app.task import Task
from celery.exceptions import Reject

import hermes_async.transport.streams  # noqa: F401  (registers redisstream://)
from hermes_async.worker.pool import running_pool

BROKER = os.environ.get("TEST_BROKER", "redisstream://127.0.0.1:6379/0")
NOTES = os.environ.get("TEST_NOTES", BROKER.replace("redisstream://", "redis://"))

app = Celery("tests", broker=BROKER)
app.conf.update(
    broker_transport_options=json.loads(os.environ.get("TEST_OPTIONS", "{}")),
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_default_priority=5,  # kombu says 0 for none
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_default_queue=os.environ.get("TEST_QUEUE", "celery"),
    worker_pool=os.environ.get("TEST_POOL", "hermes_async.worker.pool:AsyncioPool"),
)

app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))

#: What `nest` waits for; it works with one worker only.
ended: dict[str, asyncio.Event] = {}

_notes = redis.Redis.from_url(NOTES, decode_responses=True)


def note(what: str, task: Task) -> None:
    """Append one line for the test to read."""
    _notes.rpush("notes", json.dumps([what, task.request.id, time.time(), os.getpid()]))


@app.task(bind=True)
async def nap(self: Task, seconds: float = 0.0) -> None:
    note("start", self)
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        note("soft", self)
        raise
    except asyncio.CancelledError:
        note("cancelled", self)
        raise
    note("end", self)


@app.task
async def noop() -> None:
    """Nothing, for counting."""


@app.task(bind=True)
async def nest(self: Task, depth: int, seconds: float = 0.0) -> None:
    """Wait for another of the same, without a slot."""
    note("start", self)
    pool = running_pool()
    assert pool is not None
    if depth:
        async with pool.aside():
            child = nest.delay(depth - 1, seconds).id
            await ended.setdefault(child, asyncio.Event()).wait()
    await asyncio.sleep(seconds)
    ended.setdefault(self.request.id, asyncio.Event()).set()
    note("end", self)


@app.task(bind=True)
async def hog(self: Task, seconds: float) -> None:
    """Block the event loop."""
    note("start", self)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@app.task(bind=True)
async def stubborn(self: Task, seconds: float) -> None:
    """Refuse to be cancelled."""
    note("start", self)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@app.task(bind=True)
async def refuse_once(self: Task) -> None:
    redelivered = self.request.delivery_info["redelivered"]
    note("redelivered" if redelivered else "start", self)
    if not redelivered:
        raise Reject("not now", requeue=True)


@app.task(bind=True)
def sync_nap(self: Task, seconds: float = 0.0) -> None:
    note("start", self)
    time.sleep(seconds)
    note("end", self)


@app.task(bind=True)
async def exit_worker(self: Task) -> None:
    note("start", self)
    raise SystemExit(3)


@app.task(bind=True)
def kill_child(self: Task) -> None:
    note("start", self)
    os.kill(os.getpid(), signal.SIGKILL)
