"""A place is given back while an attempt waits for its children, and taken again before it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hermes_async.core.aside import Aside
from hermes_async.core.limits import Limits
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, GateLimits
from hermes_async.domain.task import Task, TaskStatus
from hermes_async.sdk import TaskContext
from tests.support.bench import Bench, MakeBench
from tests.support.servers import wait_until_async
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
ONE = AgentsConfig(limits=GateLimits(max_running=1))
PATIENCE = 5.0


@subagent
async def nothing(ctx: TaskContext) -> None:
    """Never run here: the test plays the worker."""


class Attempt:
    """A claimed task that steps aside as its test says."""

    def __init__(self, bench: Bench, task: Task) -> None:
        self.bench = bench
        self.task = task
        self.limits = Limits(task)
        self.aside = Aside(task, bench.store, self.limits)
        self.branches: list[asyncio.Task[None]] = []

    def wait(self, until: asyncio.Event) -> asyncio.Task[None]:
        """A branch that is aside until something has happened."""

        async def branch() -> None:
            async with self.aside():
                await until.wait()

        self.branches.append(asyncio.create_task(branch()))
        return self.branches[-1]

    async def has_place(self) -> bool:
        return self.bench.store._gate.has_admitted(self.task.id)

    async def has_none(self) -> bool:
        return not await self.has_place()

    async def in_line(self) -> bool:
        return self.bench.store._gate.has_in_line(self.task)


async def begun(bench: Bench) -> Task:
    task = await bench.dispatch(nothing)
    claimed = await bench.store.claim(task.id, "w1", 60.0)
    assert claimed is not None
    return claimed


async def end(bench: Bench, task: Task) -> None:
    assert await bench.store.append(make_event(task, "task.completed"))


@pytest.fixture
async def bench(make_bench: MakeBench) -> Bench:
    return make_bench(nothing, config=ONE)


@pytest.fixture
async def attempt(bench: Bench) -> Attempt:
    return Attempt(bench, await begun(bench))


async def soon(waiting: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await waiting


async def test_a_place_is_free_while_its_owner_waits(attempt: Attempt) -> None:
    until = asyncio.Event()
    branch = attempt.wait(until)
    await wait_until_async(attempt.has_none)
    other = await begun(attempt.bench)  # there is one place
    until.set()
    await wait_until_async(attempt.in_line)
    assert not branch.done()
    await end(attempt.bench, other)
    await soon(branch)
    assert await attempt.has_place()


async def test_it_is_back_when_the_last_branch_is(attempt: Attempt) -> None:
    events = [asyncio.Event() for _ in range(3)]
    branches = [attempt.wait(event) for event in events]
    await wait_until_async(attempt.has_none)
    for event, branch in zip(events[:2], branches, strict=False):
        event.set()
        await soon(branch)
        assert await attempt.has_none()
    events[2].set()
    await soon(branches[2])
    assert await attempt.has_place()


async def test_a_branch_that_waits_for_the_place_goes_on_when_another_steps_aside(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.core.aside.ASK_EVERY", 60.0)
    first, second = asyncio.Event(), asyncio.Event()
    branch = attempt.wait(first)
    await wait_until_async(attempt.has_none)
    other = await begun(attempt.bench)
    first.set()
    await wait_until_async(attempt.in_line)
    late = attempt.wait(second)
    await soon(branch)
    assert not await attempt.in_line()  # or it would get a place for waiting
    await end(attempt.bench, other)
    assert await attempt.has_none()
    child = await begun(attempt.bench)
    await end(attempt.bench, child)
    second.set()
    await soon(late)
    assert await attempt.has_place()


async def test_who_is_cancelled_goes_on_at_once_and_has_a_place_later(attempt: Attempt) -> None:
    branch = attempt.wait(asyncio.Event())
    await wait_until_async(attempt.has_none)
    other = await begun(attempt.bench)
    branch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(branch)
    await wait_until_async(attempt.in_line)
    await end(attempt.bench, other)
    await wait_until_async(attempt.has_place)


async def test_who_is_cancelled_on_its_way_back_still_comes_back(attempt: Attempt) -> None:
    until = asyncio.Event()
    branch = attempt.wait(until)
    await wait_until_async(attempt.has_none)
    other = await begun(attempt.bench)
    until.set()
    await wait_until_async(attempt.in_line)
    branch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(branch)
    await end(attempt.bench, other)
    await wait_until_async(attempt.has_place)
    again = asyncio.Event()
    branch = attempt.wait(again)
    await wait_until_async(attempt.has_none)  # and can step aside once more
    again.set()
    await soon(branch)


async def test_who_is_cancelled_while_it_steps_aside_has_its_place_again(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, done = attempt.bench.store, asyncio.Event()
    step_aside = store.step_aside

    async def slow(task: Task) -> None:
        await step_aside(task)
        done.set()
        await asyncio.sleep(PATIENCE)  # its answer is under way

    monkeypatch.setattr(store, "step_aside", slow)
    branch = attempt.wait(asyncio.Event())
    await soon(done.wait())
    branch.cancel()
    await wait_until_async(attempt.has_place)
    with pytest.raises(asyncio.CancelledError):
        await soon(branch)


@pytest.mark.parametrize("call", ["step_aside", "step_back"])
async def test_a_store_that_is_away_is_waited_for(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = attempt.bench.store
    real: Callable[[Task], Any] = getattr(store, call)

    async def weak(task: Task) -> Any:
        store._check(call)
        return await real(task)

    monkeypatch.setattr(store, call, weak)
    store.away = 3
    until = asyncio.Event()
    branch = attempt.wait(until)
    if call == "step_aside":
        await wait_until_async(attempt.has_none)
    until.set()
    await soon(branch)
    assert store.away == 0
    assert await attempt.has_place()


async def test_an_attempt_that_is_not_ours_any_more_does_not_wait(attempt: Attempt) -> None:
    until = asyncio.Event()
    branch = attempt.wait(until)
    await wait_until_async(attempt.has_none)
    assert await attempt.bench.store.append(make_event(attempt.task, "task.attempt_lost"))
    until.set()
    await soon(branch)
    record = await attempt.bench.record(attempt.task)
    assert record.status is TaskStatus.QUEUED


async def test_nobody_is_idle_while_it_waits_or_is_on_its_way_back(bench: Bench) -> None:
    task = await begun(bench)
    silent = task.birth.options.model_copy(update={"idle_timeout": 0.1})
    attempt = Attempt(
        bench, task.model_copy(update={"birth": task.birth.model_copy(update={"options": silent})})
    )
    strike, until = asyncio.Event(), asyncio.Event()
    attempt.limits.watch(strike.set)
    branch = attempt.wait(until)
    await wait_until_async(attempt.has_none)
    other = await begun(bench)
    await asyncio.sleep(0.3)
    until.set()
    await wait_until_async(attempt.in_line)
    await asyncio.sleep(0.3)
    assert not strike.is_set()
    await end(bench, other)
    await soon(branch)
    await soon(strike.wait())  # now it works, and says nothing
