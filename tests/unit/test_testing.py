"""LocalHermes and stub: what users test with must itself be right."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hermes_async import ParentContext, TaskCancelled, TaskContext, TaskFailed, TaskResult, subagent
from hermes_async.adapters.memory import MemoryStore
from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import AgentsConfig, AgentSpec, GateLimits, RetryPolicy, SubagentSpec
from hermes_async.domain.errors import InvalidInput, UnknownAgent, UserError
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import TaskStatus
from hermes_async.testing import LocalHermes, stub
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(initial=0.001, jitter=False)


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


class Crowd:
    """How many run at once, and how many did at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        yield
        self.now -= 1


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
    crowd = Crowd()

    @subagent
    async def busy(ctx: TaskContext) -> None:
        with crowd.joined():
            await asyncio.sleep(0.001)

    async with LocalHermes(busy, slots=3) as hermes:
        session = hermes.session()
        await asyncio.gather(*[await session.dispatch(busy) for _ in range(20)])
    assert crowd.most == 3


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
    assert isinstance(hermes.store, MemoryStore)
    assert hermes.store._kept[handle.id].task.status is TaskStatus.QUEUED


async def test_leaving_stops_families_too() -> None:
    before = asyncio.all_tasks()
    async with LocalHermes(hopeful, forever, slots=1) as hermes:
        await hermes.session().dispatch(hopeful, 2)
        await wait_until_async(lambda: _runs(hermes, "forever"))
    assert asyncio.all_tasks() == before


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
        for handle in (await session.dispatch("research", "tea"), await session.submit("research", "tea")):
            assert await handle == {"a": 1}
            assert (await handle.task()).birth.input == {"input": "tea"}
        with pytest.raises(InvalidInput, match=r"^research: too many positional arguments"):
            await session.dispatch("research", "by", "place")


@pytest.mark.parametrize("agent", [double, double_in_a_thread])
async def test_a_stub_of_an_agent_is_called_as_that_is(agent: Any) -> None:
    slow = agent.options(timeout=7)
    stand_in = stub(slow, returns=42)
    assert (stand_in.name, stand_in.lane, stand_in.spec) == (agent.name, agent.lane, slow.spec)
    async with LocalHermes(stand_in, quadruple) as hermes:
        session = hermes.session()
        for handle in (
            await session.dispatch(stand_in, 1),
            await session.dispatch(agent.name, n=2),
            await session.submit(agent.name, '{"n": 3}'),
        ):
            assert await handle == 42
        for wrong in ((), ("x",), (1, 2)):
            with pytest.raises(InvalidInput, match=f"^{agent.name}: "):
                await session.dispatch(agent.name, *wrong)
    async with LocalHermes(stub(double, returns="x")) as hermes:
        with pytest.raises(TaskFailed, match="the result of double does not fit"):
            await (await hermes.session().dispatch(double, 1))


async def test_an_agent_that_dispatches_another_finds_its_stub() -> None:
    async with LocalHermes(quadruple, stub(double, returns=5)) as hermes:
        assert await (await hermes.session().dispatch("quadruple", 1)) == 10


WRONG: dict[str, Callable[[], Any]] = {
    "LocalHermes: slots: ": lambda: LocalHermes(slots=0),
    "LocalHermes: config: ": lambda: LocalHermes(config="agents.yaml"),  # type: ignore[arg-type]
    "LocalHermes: callbacks.f: ": lambda: LocalHermes(callbacks={"f": "g"}),  # type: ignore[dict-item]
    "stub: agent.": lambda: stub(5),  # type: ignore[arg-type]
    "stub: raises.": lambda: stub("x", raises="no"),  # type: ignore[arg-type]
    "an agent cannot be called 'a b': `name` must be a name": lambda: stub("a b"),
}


@pytest.mark.parametrize("told", WRONG)
def test_what_cannot_be_tested_with_is_refused(told: str) -> None:
    with pytest.raises(UserError) as caught:
        WRONG[told]()
    assert str(caught.value).startswith(told)


def test_it_needs_no_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; from hermes_async.testing import LocalHermes, stub"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_pytest_finds_the_fixture_by_itself(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(local_hermes):\n    assert local_hermes()\n")
    line = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


async def test_a_stub_may_fail() -> None:
    async with LocalHermes(stub("research", raises=KeyError("k"))) as hermes:
        with pytest.raises(TaskFailed, match="KeyError"):
            await (await hermes.session().dispatch("research"))


async def test_the_fixture_is_the_same(
    local_hermes: Callable[..., AbstractAsyncContextManager[Hermes]],
) -> None:
    async with local_hermes(double) as hermes:
        assert await (await hermes.session().dispatch(double, 1)) == 2


# -- families --------------------------------------------------------------------------------------------
@subagent
async def nest(ctx: TaskContext, depth: int) -> int:
    if depth == 0:
        return 0
    return 1 + await (await ctx.dispatch(nest, depth - 1))


@subagent
async def hopeful(ctx: TaskContext, depth: int) -> None:
    await (await (ctx.dispatch(hopeful, depth - 1) if depth else ctx.dispatch(forever)))


@subagent
async def fan(ctx: TaskContext, width: int) -> int:
    children = await ctx.dispatch_many(double, [{"n": n} for n in range(width)])
    return sum(await asyncio.gather(*children))


@subagent
async def grandparents(ctx: TaskContext, width: int) -> int:
    children = [await ctx.dispatch(fan, width) for _ in range(width)]
    return sum(await asyncio.gather(*children))


async def done(handle: Any) -> Any:
    async with asyncio.timeout(10.0):
        return await handle


async def test_one_slot_is_enough_for_any_nesting() -> None:
    for limits in (GateLimits(), GateLimits(max_running=1)):
        async with LocalHermes(nest, config=AgentsConfig(limits=limits), slots=1) as hermes:
            assert await done(await hermes.session().dispatch(nest, 4)) == 4


async def test_one_slot_is_enough_for_whole_families_at_once() -> None:
    async with LocalHermes(double, fan, grandparents, slots=1) as hermes:
        handles = [await hermes.session(name).dispatch(grandparents, 3) for name in "abc"]
        assert await done(asyncio.gather(*handles)) == [18, 18, 18]


async def test_limits_of_subagents_and_agents_hold_while_tasks_nest() -> None:
    use = SubagentSpec(id="nest", agent="nest", concurrency_limit=1)
    config = AgentsConfig(
        agents={
            "nest": AgentSpec(run="tests.unit.test_testing:nest", concurrency_limit=1, subagents=(use,)),
            "boss": AgentSpec(type="conversational", subagents=(use,)),
        }
    )
    async with LocalHermes(nest, config=config) as hermes:
        handles = [await hermes.session(name, parent="boss").dispatch("nest", depth=3) for name in "ab"]
        assert await done(asyncio.gather(*handles)) == [3, 3]
        traffic = await hermes.traffic()
        assert (sum(traffic.admitted.values()), traffic.waiting) == (0, 0)


async def test_children_of_one_parent_run_one_by_one_in_one_slot() -> None:
    crowd = Crowd()

    @subagent
    async def busy(ctx: TaskContext) -> None:
        with crowd.joined():
            await asyncio.sleep(0.005)

    @subagent
    async def spread(ctx: TaskContext) -> None:
        await asyncio.gather(*await ctx.dispatch_many(busy, [{}] * 5))
        with crowd.joined():  # it has its slot again
            await asyncio.sleep(0.005)

    async with LocalHermes(busy, spread, slots=1) as hermes:
        session = hermes.session()
        await done(asyncio.gather(*[await session.dispatch(spread) for _ in range(3)]))
    assert crowd.most == 1


async def test_a_parent_may_follow_the_events_of_its_child() -> None:
    @subagent
    async def speaker(ctx: TaskContext) -> None:
        for n in range(3):
            ctx.partial(n, name=f"part {n}")
            await asyncio.sleep(0.02)

    @subagent
    async def listener(ctx: TaskContext) -> list[str]:
        child = await ctx.dispatch(speaker)
        return [event.type async for event in child.events()]

    async with LocalHermes(speaker, listener, slots=1) as hermes:
        types = await done(await hermes.session().dispatch(listener))
    assert types == ["task.queued", "task.started", *["task.partial"] * 3, "task.completed"]


async def test_a_parent_may_lose_its_patience_and_go_on() -> None:
    @subagent
    async def impatient(ctx: TaskContext) -> list[int]:
        slow = await ctx.dispatch(forever)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await slow
        await slow.cancel()
        results = []
        for n in range(3):
            results.append(await (await ctx.dispatch(double, n)))
        return results

    async with LocalHermes(double, forever, impatient, slots=1) as hermes:
        assert await done(await hermes.session().dispatch(impatient)) == [0, 2, 4]
        assert await done(await hermes.session().dispatch(double, 1)) == 2


async def test_a_cancel_reaches_whom_a_parent_waits_for_and_frees_every_slot() -> None:
    async with LocalHermes(hopeful, forever, double, slots=1) as hermes:
        session = hermes.session()
        top = await session.dispatch(hopeful, 3)
        await wait_until_async(lambda: _runs(hermes, "forever"))
        waiting = await session.dispatch(double, 5)
        assert await top.cancel()
        with pytest.raises(TaskCancelled):
            await done(top)
        assert await done(waiting) == 10
        await wait_until_async(lambda: _all_ended(hermes))
        by_agent = {(task.agent, task.status) for task in await hermes.tasks()}
        assert by_agent == {
            ("hopeful", TaskStatus.CANCELLED),
            ("forever", TaskStatus.CANCELLED),
            ("double", TaskStatus.COMPLETED),
        }
        traffic = await hermes.traffic()
        assert (sum(traffic.admitted.values()), traffic.waiting) == (0, 0)


async def test_without_cascade_the_children_go_on() -> None:
    @subagent
    async def forgetful(ctx: TaskContext) -> None:
        await (await ctx.dispatch(forever))

    async with LocalHermes(forgetful, forever) as hermes:
        top = await hermes.session().dispatch(forgetful)
        await wait_until_async(lambda: _runs(hermes, "forever"))
        assert await top.cancel(cascade=False)
        with pytest.raises(TaskCancelled):
            await done(top)
        assert await _runs(hermes, "forever")


async def _runs(hermes: Hermes, agent: str) -> bool:
    return bool(await hermes.tasks(agent=agent, status=TaskStatus.RUNNING))


async def _all_ended(hermes: Hermes) -> bool:
    return all(task.status.is_terminal for task in await hermes.tasks())


# -- time limits -----------------------------------------------------------------------------------------
@subagent(idle_timeout=0.3)
async def talkative(ctx: TaskContext, times: int) -> str:
    for n in range(times):
        await asyncio.sleep(0.1)
        ctx.progress(n)
    return "done"


@subagent(idle_timeout=0.3)
def talkative_in_a_thread(ctx: TaskContext, times: int) -> str:
    for n in range(times):
        time.sleep(0.1)
        ctx.progress(n)
    return "done"


@subagent(idle_timeout=0.3)
async def silent(ctx: TaskContext) -> None:
    ctx.partial("so far")
    await asyncio.Event().wait()


@subagent(idle_timeout=0.3)
def silent_in_a_thread(ctx: TaskContext) -> None:
    ctx.partial("so far")
    while not ctx.cancelled:
        time.sleep(0.01)


@pytest.mark.parametrize("agent", [talkative, talkative_in_a_thread])
async def test_who_gives_signs_of_life_is_not_idle(agent: Any) -> None:
    async with LocalHermes(agent) as hermes:
        assert await done(await hermes.session().dispatch(agent, 6)) == "done"


@pytest.mark.parametrize("agent", [silent, silent_in_a_thread])
async def test_who_is_silent_is_ended_and_what_it_had_is_kept(agent: Any) -> None:
    async with LocalHermes(agent) as hermes:
        handle = await hermes.session().dispatch(agent)
        with pytest.raises(TaskFailed, match=r"idle_timeout.*no sign of life for 0.3 s"):
            await done(handle)
        task = await handle.task()
        assert (task.reason, task.partials) == (Reason.IDLE_TIMEOUT, {"output": "so far"})


async def test_who_waits_for_its_children_is_not_idle() -> None:
    @subagent(idle_timeout=0.2)
    async def patient(ctx: TaskContext) -> str:
        child = await ctx.dispatch(talkative, 6)
        return str(await child)

    async with LocalHermes(patient, talkative, slots=1) as hermes:
        assert await done(await hermes.session().dispatch(patient)) == "done"


async def test_a_task_has_only_its_total_time_over_all_attempts() -> None:
    @subagent(total_timeout=0.5, retry_limit=100, retry=RetryPolicy(initial=0.1, jitter=False, factor=1.0))
    async def stubborn(ctx: TaskContext) -> None:
        ctx.partial(ctx.attempt)
        await asyncio.sleep(0.05)
        raise ValueError("again")

    @subagent(total_timeout=0.3, retry_limit=9)
    async def slow(ctx: TaskContext) -> None:
        ctx.partial(ctx.attempt)
        await asyncio.Event().wait()

    async with LocalHermes(stubborn, slow) as hermes:
        for agent in (stubborn, slow):
            handle = await hermes.session().dispatch(agent)
            with pytest.raises(TaskFailed, match="not done within its total_timeout"):
                await done(handle)
            task = await handle.task()
            assert task.reason is Reason.TOTAL_TIMEOUT
            assert task.partials["output"] == task.attempt


async def test_who_waits_too_long_for_its_start_expires() -> None:
    @subagent(queue_timeout=0.2)
    async def late(ctx: TaskContext) -> None:
        """Never begins."""

    async with LocalHermes(forever, late, slots=1) as hermes:
        await hermes.session().dispatch(forever)
        with pytest.raises(TaskFailed, match=r"expired.*not started within its queue_timeout of 0.2 s"):
            await done(await hermes.session().dispatch(late))


async def test_another_agent_takes_over_the_same_task() -> None:
    @subagent(fallback="double", retry_limit=1, retry=NOW)
    async def hopeless(ctx: TaskContext, n: int) -> int:
        raise ValueError("no")

    async with LocalHermes(hopeless, double) as hermes:
        handle = await hermes.session().dispatch(hopeless, 4)
        assert await done(handle) == 8
        task = await handle.task()
        assert (task.agent, task.attempt, task.birth.subagent) == ("double", 3, "hopeless")
        agents = [event.agent async for event in handle.events() if event.type == "task.started"]
        assert agents == ["hopeless", "hopeless", "double"]


async def test_callbacks_are_called_here_too() -> None:
    told: list[TaskResult] = []

    def tell(result: TaskResult, parent: ParentContext) -> None:
        told.append(result)
        parent["session"].send_message("done")

    agent = stub("brew", returns="tea").options(callbacks={"on_complete": "tell"})
    async with LocalHermes(agent, callbacks={"tell": tell}) as hermes:
        session = hermes.session("chat")
        handle = await session.dispatch(agent)
        async for event in session.events():
            if event.type == "callback.succeeded":
                break
        pending = await session.pending()
    messages = [each.event.data.text for each in pending if each.event.type == "session.message"]
    assert [(result.task_id, result.output) for result in told] == [(handle.id, "tea")]
    assert messages == ["done"]
