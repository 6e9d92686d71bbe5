"""Broker messages as a stranger, or a network that repeats itself, may put them there."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import redis

from hermes_async.domain.task import Lane
from tests.support.servers import RedisServer

BODY = '[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def message(task_id: str, agent: str, *, body: str = BODY, **changes: Any) -> str:
    """Return the text of a message for a task; `changes` replace whole parts of it, or headers by name."""
    headers = {
        **{"lang": "py", "task": f"hermes.{agent}", "id": task_id, "root_id": task_id, "parent_id": None},
        **{"group": None, "shadow": None, "eta": None, "expires": None, "retries": 0},
        **{"timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}", "origin": "test"},
        "ignore_result": True,
    }
    text = {
        "body": b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            **{"correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 5},
            "delivery_info": {"exchange": "", "routing_key": "hermes"},
            **{"body_encoding": "base64", "delivery_tag": "1"},
        },
    }
    for name, value in changes.items():
        (headers if name in headers else text)[name.replace("_", "-") if name not in headers else name] = (
            value
        )
    return json.dumps(text)


def queue_of(agent: str) -> str:
    """The stream on which an agent's messages lie."""
    return f"hermes.{Lane.PROCESS if agent.startswith('sync') else Lane.ASYNC}"


def deliver(server: RedisServer, task_id: str, agent: str) -> None:
    """Put a task's message on the broker, whatever has become of the task."""
    with server.client() as client:
        client.xadd(queue_of(agent), {"m": message(task_id, agent)})


def is_settled(client: redis.Redis, queue: str) -> bool:
    """Whether nothing lies on a queue, claimed or not."""
    if not client.exists(queue):
        return True
    return not client.xlen(queue) and not any(group["pending"] for group in client.xinfo_groups(queue))
