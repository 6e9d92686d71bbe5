"""LocalHermes and stub: what users test with must itself be right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from hermes_async import TaskCancelled, TaskContext, TaskFailed, subagent
from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import AgentsConfig, AgentSpec, RetryPolicy, SubagentSpec
from hermes_async.domain.errors import InvalidInput, UnknownAgent
from hermes_async.domain.task import TaskStatus
from hermes_async.testing import LocalHermes, stub
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(initial=0.001, jitter=False)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@subagent
async def double(ctx: TaskContext, n: int) -> int:
    return 2 * n


@subagent
def double_in_a_thread(ctx: TaskContext, n: int) -> int:
    return 2 * n


@subagent
async def quadruple(ctx: TaskContext, n: int) -> int:
    child = await ctx.dispatch(double, n)
    return 2 * await child


@subagent
async def forever(ctx: TaskContext) -> None:
    ctx.progress(1)
    await asyncio.Event().wait()


@pytest.mark.parametrize("agent", [double, double_in_a_thread])
async def test_an_agent_runs_here_and_now(agent: Any) -> None:
    async with LocalHermes(agent) as hermes:
        handle = await hermes.session("chat").dispatch(agent, 21)
        assert await handle == 42
        assert [event.type async for event in handle.events()] == [
            "task.queued",
            "task.started",
            "task.completed",
        ]


async def test_a_subagent_may_have_subagents() -> None:
    async with LocalHermes(double, quadruple) as hermes:
        assert await (await hermes.session().dispatch(quadruple, 3)) == 12


async def test_a_thousand_tasks_at_once() -> None:
    async with LocalHermes(double) as hermes:
        session = hermes.session("chat")
        handles = [await session.dispatch(double, n) for n in range(1000)]
        assert await asyncio.gather(*handles) == [2 * n for n in range(1000)]
        assert len(await session.pending(limit=2000)) == 1000


async def test_no_more_run_at_once_than_there_are_slots() -> None:
    running, most = 0, 0

    @subagent
    async def busy(ctx: TaskContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    async with LocalHermes(busy, slots=3) as hermes:
        session = hermes.session()
        await asyncio.gather(*[await session.dispatch(busy) for _ in range(20)])
    assert most == 3


async def test_retries_happen() -> None:
    @subagent(retry_limit=2, retry=NOW)
    async def flaky(ctx: TaskContext) -> int:
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return ctx.attempt

    async with LocalHermes(flaky) as hermes:
        assert await (await hermes.session().dispatch(flaky)) == 3


async def test_cancel_stops_what_runs_and_frees_its_slot() -> None:
    async with LocalHermes(forever, double, slots=1) as hermes:
        session = hermes.session()
        handle = await session.dispatch(forever)
        after = await session.dispatch(double, 1)
        await wait_until_async(lambda: _has_progress(handle))
        assert await handle.cancel()
        with pytest.raises(TaskCancelled):
            await handle
        assert await after == 2


async def _has_progress(handle: Any) -> bool:
    return (await handle.task()).progress is not None


async def test_leaving_stops_what_runs_and_leaves_no_task_of_the_loop() -> None:
    before = asyncio.all_tasks()
    async with LocalHermes(forever) as hermes:
        handle = await hermes.session().dispatch(forever)
        await wait_until_async(lambda: _has_progress(handle))
    assert asyncio.all_tasks() == before
    assert (await handle.task()).status is TaskStatus.QUEUED


async def test_the_configuration_is_that_of_agents_yaml() -> None:
    use = SubagentSpec(id="times_two", agent="double")
    config = AgentsConfig(agents={"boss": AgentSpec(type="conversational", subagents=(use,))})
    async with LocalHermes(double, config=config) as hermes:
        session = hermes.session(parent="boss")
        assert await (await session.dispatch("times_two", n=4)) == 8
        with pytest.raises(UnknownAgent):
            await session.dispatch("double", n=4)


async def test_a_stub_takes_anything_and_returns_what_it_is_told() -> None:
    async with LocalHermes(stub("research", returns={"a": 1}), stub("nothing")) as hermes:
        session = hermes.session()
        assert await (await session.dispatch("research", topic="x", deep=[1])) == {"a": 1}
        assert await (await session.dispatch("nothing")) is None
        with pytest.raises(InvalidInput):
            await session.dispatch("research", "by place")


async def test_a_stub_may_fail() -> None:
    async with LocalHermes(stub("research", raises=KeyError("k"))) as hermes:
        with pytest.raises(TaskFailed, match="KeyError"):
            await (await hermes.session().dispatch("research"))


async def test_the_fixture_is_the_same(
    local_hermes: Callable[..., AbstractAsyncContextManager[Hermes]],
) -> None:
    async with local_hermes(double) as hermes:
        assert await (await hermes.session().dispatch(double, 1)) == 2
