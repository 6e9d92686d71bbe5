"""A Hermes whose one agent says what it was told, over a Redis of the test's choice."""

from __future__ import annotations

from hermes_async import TaskContext, subagent
from hermes_async.adapters.celery_queue import CeleryQueue
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


def hermes_over(url: str) -> Hermes:
    return Hermes(Registry(AgentsConfig(), [echo]), RedisStore(url), CeleryQueue(url, shares_store=True))
