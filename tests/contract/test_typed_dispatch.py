"""An agent that is dispatched itself is what its parent calls by name."""

from __future__ import annotations

import asyncio
import sys
from types import FunctionType, ModuleType
from typing import Any

import pytest

from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.context import TaskContext
from hermes_async.core.hermes import Hermes
from hermes_async.core.ports import Store
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.agent import (
    AgentsConfig,
    AgentSpec,
    Callbacks,
    Idempotency,
    RetryPolicy,
    RunLimits,
    SubagentSpec,
    Webhook,
)
from hermes_async.domain.errors import UnknownAgent, UserError
from hermes_async.domain.task import Birth, Lane, TaskStatus
from hermes_async.testing import stub

pytestmark = pytest.mark.anyio


@subagent(timeout=60, retry_limit=1, retry={"initial": 3.0}, priority=7)
async def research(ctx: TaskContext, topic: str) -> str:
    """Look into it."""
    return topic


@subagent
async def write(ctx: TaskContext, topic: str) -> str:
    """Write of it."""
    return topic.upper()


@subagent
async def edit(ctx: TaskContext, by_name: bool) -> str:
    """Have something written."""
    handle: Any = await ctx.dispatch("write" if by_name else write, topic="x")
    return f"{handle.id} {await handle}"


def another(name: str = "research") -> Subagent[..., Any]:
    @subagent(name=name)
    def elsewhere(ctx: TaskContext, topic: str) -> str:
        return f"another {topic}"

    return elsewhere


FULL = SubagentSpec(
    id="research",
    agent="research",
    timeout=5.0,
    queue_timeout=6.0,
    retry_limit=4,
    retry=RetryPolicy(factor=3.0),
    concurrency_limit=2,
    callbacks=Callbacks(on_complete="tell"),
    webhook=Webhook(url="https://example.com/hook"),
    fallback="write",
    idempotency=Idempotency(ttl=9.0),
    limits=RunLimits(requests=3),
    model="gpt",
)


def boss(*subagents: SubagentSpec, **agents: AgentSpec) -> AgentsConfig:
    parent = AgentSpec(type="conversational", subagents=subagents)
    return AgentsConfig(agents={"boss": parent, **agents})


def hermes(
    store: Store, config: AgentsConfig, *agents: Subagent[..., Any], queue: MemoryQueue | None = None
) -> Hermes:
    return Hermes(Registry(config, agents or (research, write, edit)), store, queue or MemoryQueue())


async def birth(made: Hermes, agent: Any, parent: str | None = "boss", **input: Any) -> Birth:
    session = made.session(parent=parent)
    one = await session.dispatch(agent, **input or {"topic": "x"})
    [other] = await session.dispatch_many(agent, [input or {"topic": "x"}])
    first, second = [(await handle.task()).birth for handle in (one, other)]
    assert same(first, second)
    return first


def same(one: Birth, other: Birth) -> bool:
    """Whether all is equal but what is another for each task."""
    own = {"id", "session_id", "traceparent", "budgets"}
    limits = [[budget.limits for budget in each.budgets] for each in (one, other)]
    return one.model_dump(exclude=own) == other.model_dump(exclude=own) and limits[0] == limits[1]


# -- as by name ------------------------------------------------------------------------------------------
async def test_what_the_file_declares_for_this_parent_holds(store: Store) -> None:
    made = hermes(store, boss(FULL, research=AgentSpec(concurrency_limit=3, limits=RunLimits(tool_calls=5))))
    by_name, itself = await birth(made, "research"), await birth(made, research)
    assert same(by_name, itself)
    assert itself.options.timeout == 5.0
    assert (itself.options.priority, itself.options.retry) == (7, RetryPolicy(initial=3.0, factor=3.0))
    assert (itself.to.concurrency_limit, itself.options.limits) == (3, RunLimits(requests=3, tool_calls=5))


@pytest.mark.parametrize("parent", [None, "boss"])
async def test_a_parent_that_declares_none_may_dispatch_all(store: Store, parent: str | None) -> None:
    made = hermes(store, boss())
    assert same(await birth(made, "research", parent), await birth(made, research, parent))


async def test_a_parent_has_only_the_subagents_that_it_declares(store: Store) -> None:
    session = hermes(store, boss(FULL)).session(parent="boss")
    for agent in (write, write.options(timeout=1)):
        with pytest.raises(UnknownAgent) as caught:
            await session.dispatch(agent, "x")
        sentence = "agent 'boss' has no subagent that is 'write'; there is research"
        assert str(caught.value) == sentence
    assert await session.tasks() == []


async def test_an_agent_is_what_its_parent_calls_otherwise(store: Store) -> None:
    """The article's own file calls `research_agent` research."""
    uses = (
        SubagentSpec(id="find", agent="research", timeout=1.0),
        SubagentSpec(id="research", agent="write", timeout=2.0),
    )
    made = hermes(store, boss(*uses))
    assert same(await birth(made, "find"), await birth(made, research))
    assert (await birth(made, write)).subagent == "research"


async def test_of_several_it_is_the_one_of_its_own_name(store: Store) -> None:
    quick, deep = (SubagentSpec(id=name, agent="research") for name in ("quick", "deep"))
    made = hermes(store, boss(quick, deep, FULL))
    assert (await birth(made, research)).subagent == "research"
    with pytest.raises(UnknownAgent, match=r"^agent 'research' is 'quick' and 'deep' here: name the one"):
        await birth(hermes(store, boss(quick, deep)), research)


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_subagent_s_subagents_are_those_that_it_declares(store: Store, by_name: bool) -> None:
    use = SubagentSpec(id="write", agent="write", timeout=4.0)
    queue = MemoryQueue()
    made = hermes(store, boss(edit=AgentSpec(subagents=(use,))), queue=queue)
    runner = made.runner("w1", lease=60.0)
    parent = await made.session().dispatch("edit", by_name=by_name)
    assert await queue.get() == parent.id
    working = asyncio.create_task(runner.run(parent.id))
    child = await made.handle(await queue.get())
    await runner.run(child.id)
    await working
    assert await parent == f"{child.id} X"
    assert (await child.task()).birth.options.timeout == 4.0


# -- options at the dispatch -----------------------------------------------------------------------------
async def test_what_options_say_wins_over_the_file(store: Store) -> None:
    made = hermes(store, boss(FULL))
    chosen = research.options(timeout=60, retry={"maximum": 9.0}).options(limits={"tool_calls": 1})
    kept = (await birth(made, chosen)).options
    assert kept.timeout == 60  # as the decorator has it, and yet it was said
    assert kept.retry == RetryPolicy(initial=3.0, factor=3.0, maximum=9.0)
    assert kept.limits == RunLimits(requests=3, tool_calls=1)
    unchanged = {"timeout", "retry", "limits"}
    file = (await birth(made, "research")).options
    assert kept.model_dump(exclude=unchanged) == file.model_dump(exclude=unchanged)
    assert (kept.id, kept.agent) == ("research", "research")


async def test_options_of_what_was_registered_are_defaults(store: Store) -> None:
    quick = research.options(timeout=1, priority=2)
    made = hermes(store, boss(FULL), quick, write)
    assert same(await birth(made, "research"), await birth(made, quick))
    assert (await birth(made, quick)).options.timeout == 5.0
    assert (await birth(made, research)).options.priority == 2


# -- what is not registered ------------------------------------------------------------------------------
async def test_an_agent_that_is_not_known_is_refused_with_the_cure(store: Store) -> None:
    session = hermes(store, boss(), write).session()
    with pytest.raises(UnknownAgent) as caught:
        await session.dispatch(research, "x")
    assert str(caught.value) == (
        "agent 'research' is not known here: name it in agents.yaml (`research: {run: "
        "tests.contract.test_typed_dispatch:research}`), or among the `agents` of `connect`"
    )


async def test_an_agent_whose_name_another_has_is_refused(store: Store) -> None:
    made = hermes(store, boss(), another(), write)
    with pytest.raises(UnknownAgent) as caught:
        await made.session().dispatch(research, "x")
    assert str(caught.value) == (
        "agent 'research' is tests.contract.test_typed_dispatch:another.<locals>.elsewhere here, not "
        "tests.contract.test_typed_dispatch:research: give one of them another name"
    )


async def test_a_stub_stands_in_for_what_has_its_name(store: Store) -> None:
    made = hermes(store, boss(FULL), stub("research", returns="known"), write)
    assert same(await birth(made, "research"), await birth(made, research))
    handle = await made.session().dispatch(research, "x")  # by position, as the caller's type says
    await made.runner("w1", lease=60.0).run(handle.id)
    assert await handle == "known"
    count = another("count")  # a `def`; what runs is not
    assert (await birth(hermes(store, boss(), stub("count")), count)).to.lane is Lane.ASYNC


async def test_a_name_of_the_file_s_own_is_found_by_the_function(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("places")
    vars(module).update(research=research, plain=write.function)
    monkeypatch.setitem(sys.modules, "places", module)
    declared = {"researcher": AgentSpec(run="places:research"), "writer": AgentSpec(run="places:plain")}
    made = hermes(store, boss(**declared, unread=AgentSpec(run="not_there:x")), edit)
    for agent, name in ((research, "researcher"), (write, "writer")):
        assert same(await birth(made, agent), await birth(made, name))  # before it is loaded, and after
        assert same(await birth(made, agent), await birth(made, name))


async def test_a_module_that_is_also_the_program_is_there_twice(store: Store) -> None:
    made = hermes(store, boss())
    twin = FunctionType(research.function.__code__, vars(sys.modules[__name__]))
    twin.__annotations__ = research.function.__annotations__
    again = subagent(name="research")(twin)
    assert same(await birth(made, again), await birth(made, research))


@pytest.mark.parametrize("wrong", [research.function, None, FULL], ids=["function", "none", "options"])
async def test_what_is_neither_a_name_nor_an_agent_is_refused(store: Store, wrong: Any) -> None:
    with pytest.raises(
        UserError, match=r"^(research is no subagent: decorate it|a subagent is a function deco)"
    ):
        await hermes(store, boss()).session().dispatch(wrong, "x")


async def test_it_runs_to_its_end(store: Store) -> None:
    made = hermes(store, boss(SubagentSpec(id="find", agent="research")))
    handle = await made.session(parent="boss").dispatch(research, "x")
    await made.runner("w1", lease=60.0).run(handle.id)
    assert (await handle, (await handle.task()).status) == ("x", TaskStatus.COMPLETED)
