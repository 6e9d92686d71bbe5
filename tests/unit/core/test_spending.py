"""What an agent spends: counted once, over all its attempts, and held against the limits of its tree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.agent import AgentsConfig, RunLimits
from hermes_async.domain.errors import BudgetExceeded, InvalidInput, TaskFailed, TaskRejected, UserError
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Task, TaskResult, TaskStatus
from hermes_async.domain.usage import Usage
from hermes_async.testing import LocalHermes
from tests.support.bench import Bench, MakeBench

pytestmark = pytest.mark.anyio
S = TaskStatus
RETRY: dict[str, Any] = {"retry_limit": 3, "retry": {"initial": 0.001}}


def agent_that(body: Callable[[TaskContext], Awaitable[Any]], **options: Any) -> Subagent[..., Any]:
    async def agent(ctx: TaskContext) -> Any:
        return await body(ctx)

    return subagent(name="agent", **options)(agent)


async def ran(bench: Bench, agent: Subagent[..., Any]) -> tuple[AnyEvent | None, Task]:
    bench.hermes.registry._agents[agent.name] = agent
    task = await bench.dispatch(agent)
    event = await asyncio.wait_for(bench.runner.run(task.id), 10)
    return event, await bench.record(task)


async def ask_away(ctx: TaskContext) -> Any:
    """Ask for requests for as long as there are any."""
    ctx.partial("so far")
    while True:
        await ctx.spend(requests=1)
        await ctx.spend(input_tokens=100, output_tokens=20, cost_usd=0.01)


async def test_what_is_spent_is_returned_recorded_and_told(make_bench: MakeBench) -> None:
    seen = []

    async def body(ctx: TaskContext) -> int:
        seen.append(ctx.usage)
        seen.append(await ctx.spend(requests=1))
        seen.append(await ctx.spend(input_tokens=10, output_tokens=5, cost_usd=0.25))
        seen.append(ctx.usage)
        return 1

    event, task = await ran(make_bench(), agent_that(body))
    total = Usage(requests=1, input_tokens=10, output_tokens=5, cost_usd=0.25)
    assert seen == [Usage(), Usage(requests=1), total, total]
    assert event is not None
    assert event.data.usage == task.usage == TaskResult.of(task).usage == total


async def test_a_task_that_spends_nothing_says_nothing_of_it(make_bench: MakeBench) -> None:
    async def body(ctx: TaskContext) -> None:
        return None

    event, task = await ran(make_bench(), agent_that(body))
    assert event is not None
    assert event.data.usage is task.usage is task.tree_usage is None


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"requests": 3}, "3 of 3 requests (limits.requests)"),
        ({"total_tokens": 300}, "360 of 300 tokens (limits.total_tokens)"),
        ({"cost_usd": 0.025}, "0.03 of 0.025 US dollars (limits.cost_usd)"),
    ],
)
async def test_a_limit_ends_the_task_for_good_and_its_partial_results_are_kept(
    make_bench: MakeBench, limits: dict[str, Any], told: str
) -> None:
    event, task = await ran(make_bench(), agent_that(ask_away, limits=limits, fallback="agent", **RETRY))
    assert event is not None
    assert (task.status, task.reason, task.attempt) == (S.FAILED, Reason.BUDGET_EXCEEDED, 1)
    assert task.error is not None
    cure = "go on with its partial results, or ask for less"
    assert (task.error.type, task.error.traceback) == ("BudgetExceeded", "")
    assert task.error.message == f"the budget of task {task.id} is spent: {told}; {cure}"
    assert task.partials == {"output": "so far"}
    counted = Usage(requests=3, input_tokens=300, output_tokens=60, cost_usd=0.03)
    assert task.usage == task.tree_usage == event.data.usage == counted


async def test_who_catches_it_may_return_what_there_is(make_bench: MakeBench) -> None:
    async def body(ctx: TaskContext) -> str:
        with suppress(BudgetExceeded):
            await ask_away(ctx)
        return "enough"

    _, task = await ran(make_bench(), agent_that(body, limits={"requests": 2}))
    assert (task.status, task.output) == (S.COMPLETED, "enough")


async def in_a_group(ctx: TaskContext) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask_away(ctx))


async def in_disguise(ctx: TaskContext) -> None:
    try:
        await ask_away(ctx)
    except BudgetExceeded:
        raise ValueError("what now?") from None


@pytest.mark.parametrize("body", [in_a_group, in_disguise])
async def test_a_spent_budget_is_the_reason_however_it_comes_out(make_bench: MakeBench, body: Any) -> None:
    _, task = await ran(make_bench(), agent_that(body, limits={"requests": 5}, **RETRY))
    assert (task.status, task.reason) == (S.FAILED, Reason.BUDGET_EXCEEDED)
    assert task.error is not None
    assert task.error.type == "BudgetExceeded"


async def test_the_next_attempt_has_what_the_last_has_left(make_bench: MakeBench) -> None:
    async def body(ctx: TaskContext) -> None:
        assert ctx.usage.requests == 2 * (ctx.attempt - 1)
        await ctx.spend(requests=1)
        await ctx.spend(requests=1)
        raise ValueError(ctx.attempt)

    agent = agent_that(body, limits={"requests": 5}, **RETRY)
    bench = make_bench(agent)
    task = await bench.dispatch(agent)
    for _ in range(3):
        await bench.runner.run(task.id)
        bench.clock.ahead += 60
        await bench.hermes.janitor.sweep(lost=False)
    now = await bench.record(task)
    assert (now.attempt, now.reason, now.usage) == (3, Reason.BUDGET_EXCEEDED, Usage(requests=5))


async def test_a_reply_that_was_lost_and_a_store_that_is_away_count_once(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def body(ctx: TaskContext) -> None:
        bench.store.mute["spend"] = 2
        await asyncio.gather(*(ctx.spend(requests=1, cost_usd=0.1) for _ in range(3)))
        bench.store.away = 1  # for the first of them, which the others must not overtake
        await asyncio.gather(*(ctx.spend(tool_calls=1) for _ in range(3)))

    _, task = await ran(bench, agent_that(body))
    assert task.usage == Usage(requests=3, tool_calls=3, cost_usd=0.3)


async def test_who_is_cancelled_while_it_is_written_has_spent_it(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def body(ctx: TaskContext) -> None:
        bench.store.away = 2
        spending = asyncio.create_task(ctx.spend(cost_usd=0.5))
        while bench.store.away == 2:
            await asyncio.sleep(0)
        spending.cancel()
        await asyncio.wait({spending})
        assert spending.cancelled()

    event, task = await ran(bench, agent_that(body))
    assert event is not None
    assert event.data.usage == task.usage == Usage(cost_usd=0.5)


async def test_an_attempt_that_was_given_away_stops_at_its_next_request(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def body(ctx: TaskContext) -> str:
        bench.clock.ahead += 120
        await bench.hermes.janitor.sweep()
        await ctx.spend(cost_usd=0.5)
        return "too late"

    event, task = await ran(bench, agent_that(body))
    assert event is None
    assert (task.status, task.usage) == (S.QUEUED, Usage(cost_usd=0.5))


async def test_a_def_spends_by_waiting(make_bench: MakeBench) -> None:
    @subagent(limits={"requests": 1})
    def agent(ctx: TaskContext) -> str:
        assert ctx.limits == RunLimits(requests=1)
        with pytest.raises(UserError, match=r"ctx\.wait\(ctx\.spend"):
            ctx.spend(requests=1)
        assert ctx.wait(ctx.spend, requests=1) == ctx.usage == Usage(requests=1)
        with pytest.raises(BudgetExceeded):
            ctx.wait(ctx.spend, requests=1)
        return "done"

    _, task = await ran(make_bench(), agent)
    assert (task.status, task.output) == (S.COMPLETED, "done")


@pytest.mark.parametrize(
    "amount",
    [
        {"requests": -1},
        {"tool_calls": 0.5},
        {"input_tokens": 10**10},
        {"output_tokens": "7"},
        {"cost_usd": -0.01},
        {"cost_usd": float("nan")},
        {"cost_usd": float("inf")},
        {"cost_usd": "1"},
    ],
)
async def test_an_amount_beyond_reason_is_refused(make_bench: MakeBench, amount: dict[str, Any]) -> None:
    async def body(ctx: TaskContext) -> None:
        [name] = amount
        with pytest.raises(InvalidInput, match=name):
            await ctx.spend(**amount)

    _, task = await ran(make_bench(), agent_that(body))
    assert (task.status, task.usage) == (S.COMPLETED, None)


def configured(**agents: Any) -> AgentsConfig:
    return AgentsConfig.model_validate({"agents": agents})


async def test_the_limits_of_a_subagent_lie_over_those_of_its_agent(make_bench: MakeBench) -> None:
    config = configured(
        boss={
            "type": "conversational",
            "subagents": ({"id": "agent", "agent": "agent", "limits": {"requests": 7, "seconds": None}},),
        },
        agent={"limits": {"requests": 3, "cost_usd": 0.5, "seconds": 60.0}},
    )
    bench = make_bench(agent_that(ask_away), config=config)
    handle = await bench.hermes.session("chat", parent="boss").dispatch("agent")
    birth = (await handle.task()).birth
    assert birth.options.limits == RunLimits(requests=7, cost_usd=0.5)
    assert [budget.limits for budget in birth.budgets] == [birth.options.limits]
    plain = await bench.session.dispatch("agent")
    assert (await plain.task()).birth.options.limits == RunLimits(requests=3, cost_usd=0.5, seconds=60.0)


async def test_a_tree_is_bound_by_the_limits_of_its_root() -> None:
    ids: list[str] = []

    @subagent
    async def leaf(ctx: TaskContext) -> None:
        await ask_away(ctx)

    @subagent(limits={"requests": 100})
    async def branch(ctx: TaskContext) -> None:
        handles = [await ctx.dispatch(leaf) for _ in range(3)]
        for handle in handles:
            with pytest.raises(TaskFailed) as caught:
                await handle
            assert caught.value.reason is Reason.BUDGET_EXCEEDED
            assert f"the budget of task {ids[-1]} is spent: 10 of 10 requests" in str(caught.value)

    @subagent(limits={"requests": 10})
    async def root(ctx: TaskContext) -> None:
        ids.append(ctx.task_id)
        await ctx.spend(requests=1)
        await (await ctx.dispatch(branch))

    async with LocalHermes(leaf, branch, root) as hermes:
        handle = await hermes.session("chat").dispatch(root)
        await handle
        tasks = {task.agent: task for task in await hermes.tasks()}
        assert tasks["root"].tree_usage is not None
        assert tasks["branch"].tree_usage is not None
        assert (tasks["root"].tree_usage.requests, tasks["branch"].tree_usage.requests) == (10, 9)
        assert (tasks["root"].usage, tasks["branch"].usage) == (Usage(requests=1), None)


async def test_the_model_is_named_in_the_metrics_alone(make_bench: MakeBench) -> None:
    async def body(ctx: TaskContext) -> None:
        await ctx.spend(requests=1, model="gpt-4o-mini")
        for bad in ("x" * 101, "two\nlines", 7):
            with pytest.raises(InvalidInput, match="model is a name"):
                ctx.spend(requests=1, model=bad)  # type: ignore[arg-type]

    bench = make_bench()
    _, task = await ran(bench, agent_that(body))
    assert (task.status, task.usage) == (S.COMPLETED, Usage(requests=1))
    assert (await bench.store.metrics()).spent == {(task.agent, "gpt-4o-mini"): Usage(requests=1)}


async def test_the_seconds_of_a_root_end_its_whole_tree() -> None:
    stopped = asyncio.Event()

    @subagent
    async def leaf(ctx: TaskContext) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise

    @subagent(limits={"seconds": 0.3}, fallback="leaf", **RETRY)
    async def root(ctx: TaskContext) -> None:
        await (await ctx.dispatch(leaf))

    async with LocalHermes(leaf, root) as hermes:
        handle = await hermes.session("chat").dispatch(root)
        with pytest.raises(TaskFailed, match=r"0\.3 of 0\.3 seconds \(limits\.seconds\)") as caught:
            await handle
        assert caught.value.reason is Reason.BUDGET_EXCEEDED
        await asyncio.wait_for(stopped.wait(), 5)


async def test_a_child_that_is_refused_tells_its_agent_what_to_do() -> None:
    @subagent
    async def leaf(ctx: TaskContext) -> None:
        return None

    @subagent(limits={"cost_usd": 0.01})
    async def root(ctx: TaskContext, catches: bool) -> str:
        await ctx.spend(requests=1)
        await ctx.spend(input_tokens=1, cost_usd=0.01)
        try:
            await ctx.dispatch(leaf)
        except TaskRejected as exc:
            if not catches:
                raise
            return str(exc)
        return "accepted"

    async with LocalHermes(leaf, root) as hermes:
        handle = await hermes.session("chat").dispatch(root, True)
        told = f"the budget of task {handle.id} is spent: 0.01 of 0.01 US dollars (limits.cost_usd)"
        assert await handle == f"leaf was not accepted: {told}; finish with what you have"
        with pytest.raises(TaskFailed) as caught:
            await (await hermes.session("chat").dispatch(root.options(**RETRY), False))
        assert caught.value.reason is Reason.BUDGET_EXCEEDED
        assert len(await hermes.tasks()) == 2


async def test_a_fallback_works_with_what_is_left_of_the_limits_of_the_task_and_not_its_own() -> None:
    known: list[RunLimits] = []

    @subagent(fallback="second", retry_on_failure=False)
    async def first(ctx: TaskContext, times: int) -> None:
        await ctx.spend(requests=2)
        raise ValueError("no")

    @subagent
    async def second(ctx: TaskContext, times: int) -> None:
        known.append(ctx.limits)
        for _ in range(times):
            await ctx.spend(requests=1)

    agents = {"first": {"limits": {"requests": 4}}, "second": {"limits": {"requests": 1}}}
    async with LocalHermes(first, second, config=AgentsConfig.model_validate({"agents": agents})) as hermes:
        session = hermes.session("chat")
        await (await session.dispatch("first", times=2))
        with pytest.raises(TaskFailed, match=r"4 of 4 requests \(limits\.requests\)"):
            await (await session.dispatch("first", times=3))
        with pytest.raises(TaskFailed, match=r"1 of 1 requests \(limits\.requests\)"):
            await (await session.dispatch("second", times=2))
    assert [limits.requests for limits in known] == [4, 4, 1]
