"""From settings to a Hermes: the only file that picks adapters."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from hermes_async.adapters.celery_queue import CeleryQueue
from hermes_async.adapters.embedded_redis import EmbeddedRedis
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry, collect
from hermes_async.core.subagent import Subagent
from hermes_async.settings import Settings


@dataclass(frozen=True)
class Servers:
    """Where the broker and the state are."""

    broker: str
    state: str

    @property
    def are_one(self) -> bool:
        """True when the broker is the Redis that keeps the state."""
        return self.broker == self.state


@contextmanager
def servers(settings: Settings) -> Iterator[Servers]:
    """Yield the configured servers, or the embedded Redis for as long as the context lasts."""
    broker, state = settings.agents.task_queue, settings.agents.state
    if broker is not None:
        yield Servers(broker, state or broker)
        return
    embedded = EmbeddedRedis.join(settings.state_dir / "redis")
    try:
        yield Servers(embedded.url, state or embedded.url)
    finally:
        embedded.leave()


def registry(settings: Settings, agents: Iterable[Subagent[..., Any]] = ()) -> Registry:
    """Return the agents of agents.yaml, of the modules that the settings name, and `agents`.

    The project's folder becomes importable, as it is for Celery and for Python's own `-m`.
    """
    project = str(settings.project_dir)
    if project not in sys.path:
        sys.path.insert(0, project)
    collected = [agent for module in settings.modules for agent in collect(module)]
    return Registry(settings.agents, [*collected, *agents])


async def open_hermes(known: Registry, where: Servers) -> Hermes:
    """Return a Hermes on the running loop over servers that answer.

    Raises:
        StoreUnavailable: the Redis of the state does not answer within 3 s.
    """
    store = RedisStore(where.state)
    hermes = Hermes(known, store, CeleryQueue(where.broker, shares_store=where.are_one))
    try:
        await store.ping()
    except BaseException:
        await hermes.close()
        raise
    return hermes


@asynccontextmanager
async def connect(
    settings: Settings | None = None, *, agents: Iterable[Subagent[..., Any]] = ()
) -> AsyncIterator[Hermes]:
    """Yield a Hermes: agents.yaml and HERMES_* variables, or built-in defaults with an embedded Redis.

    Args:
        settings: what to use instead of what the current directory and the environment say.
        agents: decorated functions to know beside those of agents.yaml.

    Raises:
        ConfigError: agents.yaml or a variable is wrong.
        StoreUnavailable: the Redis of the state does not answer within 3 s.
    """
    chosen = settings or Settings.read()
    known = registry(chosen, agents)
    context = servers(chosen)
    where = await anyio.to_thread.run_sync(context.__enter__)
    try:
        hermes = await open_hermes(known, where)
        try:
            yield hermes
        finally:
            await hermes.close()
    finally:
        await anyio.to_thread.run_sync(context.__exit__, None, None, None)
