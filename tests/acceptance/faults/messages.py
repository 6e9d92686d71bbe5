"""Broker messages as a stranger, or a network that repeats itself, may put them there."""

from __future__ import annotations

import json
from typing import Any

from hermes_async.adapters.celery_queue import queue_name, task_name
from hermes_async.domain.task import Lane
from hermes_async.transport.message import FIELD, encode_message
from tests.support.servers import RedisServer

BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def queue_of(agent: str) -> str:
    """The stream on which an agent's messages lie."""
    return queue_name(Lane.PROCESS if agent.startswith("sync") else Lane.ASYNC)


def message(
    task_id: str, agent: str, *, headers: dict[str, Any] | None = None, **parts: Any
) -> dict[str, Any]:
    """Return a task's message as it should be, but for some headers and some whole parts."""
    usual: dict[str, Any] = {"lang": "py", "task": task_name(agent), "id": task_id, "root_id": task_id}
    usual |= {"timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}", "ignore_result": True}
    queue = queue_of(agent)
    text = encode_message(BODY, queue=queue, headers=usual | (headers or {}), correlation_id=task_id)
    return {**json.loads(text), **parts}


def deliver(server: RedisServer, task_id: str, agent: str) -> None:
    """Put a task's message on the broker, whatever has become of the task."""
    put(server, queue_of(agent), json.dumps(message(task_id, agent)))


def put(server: RedisServer, queue: str, text: str | bytes) -> None:
    """Put any text on a queue."""
    with server.client() as client:
        client.xadd(queue, {FIELD: text})


def is_settled(server: RedisServer, queue: str) -> bool:
    """Whether nothing lies on a queue any more, claimed or not."""
    with server.client() as client:
        if not client.exists(queue):
            return True
        return not client.xlen(queue) and not any(group["pending"] for group in client.xinfo_groups(queue))
