"""Testing agents and parents without servers: the real core over memory, in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial, wraps
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, InstanceOf

from hermes_async.adapters.memory import MemoryQueue, MemoryStore
from hermes_async.adapters.model.declared import DeclaredAgents
from hermes_async.adapters.tools import ToolNames, load_tools
from hermes_async.adapters.tracer import tracing_here
from hermes_async.core.arguments import Count, Function, Text, strict
from hermes_async.core.callbacks import Caller
from hermes_async.core.calling import Functions
from hermes_async.core.hermes import Hermes
from hermes_async.core.options import spec_of
from hermes_async.core.registry import Registry
from hermes_async.core.signature import unbound
from hermes_async.core.subagent import Subagent
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.task import Lane

__all__ = ["LocalHermes", "stub"]

#: The fixtures are apart, so that this module can be imported where pytest is not installed.
pytest_plugins = ("hermes_async.pytest_plugin",)

Config = Annotated[InstanceOf[AgentsConfig] | None, Field()]
Callbacks = Annotated[Mapping[str, Function], Field()]
AgentOrName = Annotated[InstanceOf[Subagent[..., Any]] | Text, Field()]
Raises = Annotated[InstanceOf[BaseException] | type[BaseException] | None, Field()]

#: Seconds between two rounds of the janitor, which brings retries back.
SWEEP_EVERY = 0.05
NO_CALLBACKS: Mapping[str, Callable[..., Any]] = MappingProxyType({})
NO_MODELS: Mapping[str, Any] = MappingProxyType({})
#: Seconds; nobody renews a lease here, and a debugger may hold a test for long.
LEASE = 86_400.0


@strict
@asynccontextmanager
async def LocalHermes(
    *agents: Subagent[..., Any],
    config: Config = None,
    slots: Count = 100,
    callbacks: Callbacks = NO_CALLBACKS,
    models: Mapping[str, Any] = NO_MODELS,
) -> AsyncIterator[Hermes]:
    """Yield a Hermes that runs its tasks here and now, without Redis, Celery or another process.

    Args:
        agents: the decorated functions that it knows.
        config: what agents.yaml would say.
        slots: tasks at once.
        callbacks: the functions that are called with news of tasks, by name; without any nobody calls.
        models: what stands in for the models of declared agents, by the agents' names: models of
            pydantic-ai, such as its TestModel.
    """
    chosen, queue, free = config or AgentsConfig(), MemoryQueue(), _Slots(slots)
    declare = DeclaredAgents(partial(load_tools, ToolNames()), has_workers=True, models=models)
    store, known = MemoryStore(limits=chosen.limits), Registry(chosen, agents, declare)
    hermes = Hermes(known, store, queue, tracing=tracing_here("memory"))
    store.home.loop()  # here, and nowhere else
    names = [*filter(known.can_run, known)]
    await hermes.store.enlist("local", Lane.ASYNC, slots, LEASE, names)
    await hermes.store.enlist("local too", Lane.PROCESS, slots, LEASE, names)
    running: dict[str, asyncio.Task[Any]] = {}
    queue.on_revoke(lambda task_id, force: _stop(running.get(task_id)))
    helpers = [
        asyncio.create_task(_work(queue, hermes, running, free)),
        asyncio.create_task(_sweep(hermes)),
    ]
    ledger = hermes.store.ledger
    caller = Caller(ledger, Functions(callbacks, ledger, hermes.session), lease=LEASE, tracing=hermes.tracing)
    calling = [asyncio.create_task(caller.run())] if callbacks else []
    try:
        yield hermes
    finally:
        caller.stop()
        await asyncio.gather(*calling)
        helpers += running.values()
        for task in helpers:
            task.cancel()
        await asyncio.wait(helpers)
        await hermes.close()


class _Slots:
    """So many tasks at once; one that waits for its children does not count."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._moved = asyncio.Event()

    def give(self) -> None:
        self._free += 1
        self._moved.set()

    def take(self) -> None:
        """Take one, though there may be none: whoever is cancelled cleans up at once."""
        self._free -= 1

    async def are_free(self) -> None:
        """Wait until one is free."""
        while self._free <= 0:
            self._moved.clear()
            await self._moved.wait()


class _Slot:
    """That of one task; it is free from the moment its first branch waits until the last goes on."""

    def __init__(self, slots: _Slots) -> None:
        self._slots = slots
        self._branches = 0

    @asynccontextmanager
    async def step_out(self, *, halted: bool) -> AsyncIterator[None]:
        self._branches += 1
        if self._branches == 1:
            self._slots.give()
        try:
            yield
            if self._branches == 1:
                await self._slots.are_free()
        finally:
            self._branches -= 1
            if not self._branches:
                self._slots.take()


async def _work(
    queue: MemoryQueue, hermes: Hermes, running: dict[str, asyncio.Task[Any]], slots: _Slots
) -> None:
    def done(task: asyncio.Task[Any]) -> None:
        slots.give()
        if running.get(task.get_name()) is task:
            del running[task.get_name()]

    while True:
        task_id = await queue.get()
        await slots.are_free()  # only now: a free slot must not wait for a message while a task wants it back
        slots.take()
        runner = hermes.runner("local", LEASE, _Slot(slots).step_out)
        running[task_id] = task = asyncio.create_task(runner.run(task_id), name=task_id)
        task.add_done_callback(done)


async def _sweep(hermes: Hermes) -> None:
    while True:
        await hermes.janitor.sweep()
        await asyncio.sleep(SWEEP_EVERY)


def _stop(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()


@strict
def stub(agent: AgentOrName, *, returns: Any = None, raises: Raises = None) -> Subagent[..., Any]:
    """Return an agent that at once returns a value, or raises.

    Args:
        agent: the agent in whose place it stands, with its name, arguments and options. Or a name alone:
            then it takes any named arguments, or a text, its `input`.
        returns: the result, of the type that the agent says.
        raises: what every attempt raises instead.
    """

    async def stand_in(ctx: Any, input: Any = None, **anything: Any) -> Any:
        if raises is not None:
            raise raises
        return returns

    if isinstance(agent, str):
        stand_in.__name__ = agent
        return Subagent(agent, stand_in, spec_of(agent, agent, {}), stands_in=True)
    called = wraps(unbound(agent.function))(stand_in)
    return agent.but(function=called, pool=agent.lane, needs=None, stands_in=True)
