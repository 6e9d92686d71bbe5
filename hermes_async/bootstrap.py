"""From settings to a Hermes: the only file that picks adapters."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from pydantic import Field, InstanceOf

from hermes_async.adapters.celery_queue import CeleryQueue
from hermes_async.adapters.embedded_redis import EmbeddedRedis
from hermes_async.adapters.model.declared import DeclaredAgents
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.adapters.tools import load_tools
from hermes_async.adapters.tracer import tracing_here
from hermes_async.core.agent import checked_agent
from hermes_async.core.arguments import strict
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry, collect
from hermes_async.core.subagent import Subagent
from hermes_async.core.tracing import Tracing
from hermes_async.domain.agent import NAMESPACE
from hermes_async.domain.urls import is_local
from hermes_async.settings import Settings, locate

#: What OpenTelemetry calls a broker, by the scheme of its URL, if it is not Redis.
_SYSTEMS = {"amqp": "rabbitmq", "amqps": "rabbitmq", "pyamqp": "rabbitmq"}
Chosen = Annotated[InstanceOf[Settings] | None, Field()]
Decorated = InstanceOf[Iterable[Subagent[..., Any]]]
#: Seconds for which a session is still listened to after its last task was awaited.
LINGER = 1.0


@dataclass(frozen=True)
class Servers:
    """Where the broker and the state are."""

    broker: str
    state: str
    #: Whether the standard variables of OpenTelemetry say where spans go.
    collects: bool = False
    #: What the names of the project's keys and queues there begin with.
    namespace: str = NAMESPACE

    @property
    def are_one(self) -> bool:
        """True when the broker is the Redis that keeps the state."""
        return self.broker == self.state


@contextmanager
def servers(settings: Settings) -> Iterator[Servers]:
    """Yield the configured servers, or the embedded Redis for as long as the context lasts."""
    broker, state = settings.agents.task_queue, settings.agents.state
    namespace = settings.agents.namespace
    if broker is not None:
        yield Servers(broker, state or broker, settings.collects, namespace)
        return
    embedded = EmbeddedRedis.join(settings.state_dir / "redis")
    try:
        yield Servers(embedded.url, state or embedded.url, settings.collects, namespace)
    finally:
        embedded.leave()


def read_settings(config: Path | None = None, agents: Iterable[Subagent[..., Any]] = ()) -> Settings:
    """Read agents.yaml and the environment; the file may name `agents` and those of HERMES_MODULES.

    Args:
        config: the file; by default what HERMES_CONFIG says, else ./agents.yaml if there is one.
        agents: decorated functions that the caller knows.

    Raises:
        ConfigError: the file, a variable or a module is wrong.
    """
    place = locate(config)
    decorated = [*_collected(place.project_dir, place.modules), *agents]
    return Settings.read(config, known_agents=[checked_agent(agent).name for agent in decorated])


def registry(settings: Settings, agents: Iterable[Subagent[..., Any]] = ()) -> Registry:
    """Return the agents of agents.yaml, of the modules that the settings name, and `agents`."""
    decorated = [*_collected(settings.project_dir, settings.modules), *agents]
    broker = settings.agents.task_queue
    declare = DeclaredAgents(
        partial(load_tools, settings.tool_names), has_workers=broker is None or is_local(broker)
    )
    return Registry(settings.agents, decorated, declare)


def _collected(project_dir: Path, modules: Iterable[str]) -> list[Subagent[..., Any]]:
    """Import modules; the project's folder counts as importable, as it does for Celery."""
    if str(project_dir) not in sys.path:
        sys.path.insert(0, str(project_dir))
    return [agent for module in modules for agent in collect(module)]


def tracing(where: Servers) -> Tracing:
    """Return what traces here over these servers; the first call sets a provider, if one is asked for."""
    system = _SYSTEMS.get(where.broker.partition(":")[0], "redis")
    return tracing_here(system, collects=where.collects, namespace=where.namespace)


async def open_hermes(known: Registry, where: Servers) -> Hermes:
    """Return a Hermes on the running loop over servers that answer.

    Raises:
        StoreUnavailable: the Redis of the state does not answer within 3 s.
    """
    store = RedisStore(where.state, namespace=where.namespace, limits=known.config.limits)
    queue = CeleryQueue(where.broker, shares_store=where.are_one, namespace=where.namespace)
    hermes = Hermes(known, store, queue, linger=LINGER, tracing=tracing(where))
    try:
        await store.ping()
    except BaseException:
        await hermes.close()
        raise
    return hermes


@strict
@asynccontextmanager
async def connect(settings: Chosen = None, *, agents: Decorated = ()) -> AsyncIterator[Hermes]:
    """Yield a Hermes: agents.yaml and HERMES_* variables, or built-in defaults with an embedded Redis.

    Args:
        settings: what to use instead of what the current directory and the environment say.
        agents: decorated functions to know beside those of agents.yaml.

    Raises:
        ConfigError: agents.yaml or a variable is wrong.
        StoreUnavailable: the Redis of the state does not answer within 3 s.
    """
    decorated = list(agents)
    chosen = settings or read_settings(agents=decorated)
    known = registry(chosen, decorated)
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
