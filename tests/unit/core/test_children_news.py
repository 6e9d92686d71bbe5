"""A task that delegates by name: it hears once of each end and question, and knows only its own tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, cast

import pytest

from hermes_async import testing
from hermes_async.adapters.memory import MemoryStore
from hermes_async.core import children
from hermes_async.core.children import Children
from hermes_async.core.company import Delegate
from hermes_async.core.context import TaskContext
from hermes_async.core.delegation import IN_A_TASK, Delegation
from hermes_async.core.dispatch import Delegate as Dispatching
from hermes_async.core.page import Page
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.agent import AgentsConfig, GateLimits
from hermes_async.domain.errors import UnknownTask
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import TaskStatus
from hermes_async.testing import LocalHermes
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def nap(ctx: TaskContext, seconds: float = 0.0) -> str:
    """Sleep."""
    await asyncio.sleep(seconds)
    return f"slept {seconds:g} s"


@subagent
async def fails(ctx: TaskContext) -> None:
    raise ValueError("no")


@subagent
async def asks(ctx: TaskContext) -> str:
    first, second = await ctx.ask("first?"), await ctx.ask("second?")
    return f"{first}, {second}"


async def within(
    body: Callable[[TaskContext], Awaitable[Any]],
    *agents: Subagent[..., Any],
    slots: int = 100,
    **options: Any,
) -> Any:
    """Run a body as the agent `parent`, and return what it returns."""

    async def parent(ctx: TaskContext) -> Any:
        return await body(ctx)

    made = subagent(parent)
    async with LocalHermes(made, *agents, slots=slots, **options) as hermes:
        return await asyncio.wait_for(await hermes.session("chat").dispatch(made), 20)


def types(news: Any) -> list[str]:
    return [event.type.removeprefix("task.") for event in news]


async def test_every_end_is_told_once_and_together_what_comes_together() -> None:
    async def body(ctx: TaskContext) -> Any:
        kin = ctx.children
        assert await kin.news() == []
        slow = await kin.submit("nap", {"seconds": 0.6})
        for _ in range(3):
            await kin.submit("nap", "0.01")
        await kin.submit("fails", {})
        first = await kin.news()
        second = await kin.news()
        assert [event.task_id for event in second] == [slow.id]
        return [sorted(types(first)), types(second), await kin.news()]

    assert await within(body, nap, fails) == [["completed"] * 3 + ["failed"], ["completed"], []]


async def test_a_question_is_news_until_it_is_answered() -> None:
    async def body(ctx: TaskContext) -> Any:
        kin, told = ctx.children, []
        handle = await kin.submit("asks", {})
        for answer in ("a", "b"):
            (event,) = await kin.news()
            told.append(event.data.question)
            await (await kin.handle(handle.id)).answer(answer)
        (event,) = await kin.news()
        return [*told, event.data.output]

    assert await within(body, asks) == ["first?", "second?", "a, b"]


async def test_a_question_that_was_answered_meanwhile_is_no_news() -> None:
    async def body(ctx: TaskContext) -> Any:
        handle = await ctx.children.submit("asks", {})
        for question in ("first?", "second?"):
            await wait_until_async(lambda question=question: _asks(handle, question))
            if question == "first?":
                await handle.answer("a")
        (event,) = await ctx.children.news()
        await handle.cancel()
        return [event.data.question, types(await ctx.children.news())]

    assert await within(body, asks) == ["second?", ["cancelled"]]


async def _asks(handle: Any, question: str) -> bool:
    asked = (await handle.task()).question
    return asked is not None and asked.question == question


async def test_waiting_for_news_takes_no_slot_and_no_place() -> None:
    async def body(ctx: TaskContext) -> Any:
        for _ in range(2):
            await ctx.children.submit("nap", "0.01")
        told = [*await ctx.children.news()]
        return types([*told, *await ctx.children.news()])

    one = AgentsConfig(limits=GateLimits(max_running=1))
    assert await within(body, nap, slots=1, config=one) == ["completed"] * 2


async def test_only_its_own_tasks_are_known() -> None:
    async def body(ctx: TaskContext) -> Any:
        kin = ctx.children
        own = [await kin.submit("nap", {}), await ctx.dispatch(nap), await kin.submit("nap", "60")]
        assert [task.id for task in await kin.tasks()] == [handle.id for handle in reversed(own)]
        assert [task.id for task in await kin.tasks(limit=1)] == [own[-1].id]
        await asyncio.gather(*own[:2])
        await wait_until_async(lambda: _is(kin, own[-1].id, TaskStatus.RUNNING))
        assert [task.id for task in await kin.tasks(status=TaskStatus.RUNNING)] == [own[-1].id]
        await own[-1].cancel()
        with pytest.raises(UnknownTask):
            await kin.handle(ctx.task_id)
        return [each.spec.id for each in kin.subagents()]

    assert await within(body, nap) == ["parent", "nap"]


async def _is(kin: Delegate, task_id: str, status: TaskStatus) -> bool:
    return (await (await kin.handle(task_id)).task()).status is status


async def test_the_six_tools_within_a_task() -> None:
    async def body(ctx: TaskContext) -> Any:
        tools = Delegation(ctx.children)
        assert tools.instructions == IN_A_TASK
        given = {"subagent": "nap", "input": "0.01"}
        one, same = [json.loads(await tools.call("delegate", given, call_id="c")) for _ in range(2)]
        assert one["task_id"] == same["task_id"]
        told = tools.news(await ctx.children.news())
        assert told.count(one["task_id"]) == 1 and "slept 0.01 s" in told
        waited = json.loads(await tools.call("delegate", {"subagent": "fails", "input": ""}))
        assert (waited["status"], waited["error"]) == ("failed", "ValueError: no")
        assert await ctx.children.news() == []  # what was waited for is no news
        return json.loads(await tools.call("check", {"task_id": ctx.task_id}))["error"]

    assert "no task of that id" in await within(body, nap, fails.options(async_=False))


async def test_the_tools_in_a_def() -> None:
    @subagent
    def waits(ctx: TaskContext) -> str:
        tools = Delegation(ctx.children)
        ctx.wait(tools.call, "delegate", {"subagent": "nap", "input": "0.01"})
        return tools.news(ctx.wait(ctx.children.news))

    async with LocalHermes(waits, nap, slots=1) as hermes:
        told = await asyncio.wait_for(await hermes.session("chat").dispatch(waits), 20)
    assert "slept 0.01 s" in told


async def test_the_same_call_of_two_tasks_is_two() -> None:
    @subagent
    async def calls(ctx: TaskContext) -> str:
        return str((await ctx.children.submit("nap", "0", idempotency_key="k")).id)

    async def body(ctx: TaskContext) -> Any:
        return await asyncio.gather(await ctx.dispatch(calls), await ctx.dispatch(calls))

    first, second = await within(body, nap, calls)
    assert first != second


async def test_ends_that_the_log_has_lost_are_told_from_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ctx: TaskContext) -> Any:
        gone, fine = await ctx.children.submit("fails", {}), await ctx.children.submit("nap", "0.3")
        await gone.ended()
        for number in range(40):
            await ctx.children.submit("nap", "0.2") if number % 20 == 0 else ctx.message("noise")
        await asyncio.sleep(0.1)
        told: list[AnyEvent] = []
        while news := await ctx.children.news():
            told += news
        assert told[0].task_id == gone.id
        return [
            told[0].data.error.message,
            len(told),
            len({event.task_id for event in told}),
            fine.id in str(told),
        ]

    monkeypatch.setattr(children, "COALESCE", 0.0)
    monkeypatch.setattr(testing, "MemoryStore", partial(MemoryStore, max_length=10))
    assert await within(body, nap, fails) == ["no", 4, 4, True]


async def test_an_end_that_is_read_while_its_task_is_being_submitted_is_told() -> None:
    class Late:
        """Delegates as the attempt does, but `start` returns only when the task's end has been read."""

        def __init__(self, delegate: Dispatching) -> None:
            self.delegate = delegate
            self.has_ended, self.was_read = asyncio.Event(), asyncio.Event()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.delegate, name)

        async def start(self, subagent: str, input: str, **options: Any) -> Any:
            handle = await self.delegate.start(subagent, input, **options)
            if input == "0":
                await handle.ended()
                self.has_ended.set()
                await self.was_read.wait()
            return handle

        async def pages(self, after: int) -> AsyncIterator[Page]:
            async with aclosing(self.delegate.pages(after)) as pages:
                async for page in pages:
                    if "task.completed" in (event.type for event in page.events):
                        self.was_read.set()
                    yield page

    async with LocalHermes(nap) as hermes:
        late = Late(hermes.session("chat")._delegate)
        kin = Children(cast("Dispatching", late))
        slow = await kin.submit("nap", "60")
        async with asyncio.TaskGroup() as group:
            submitting = group.create_task(kin.submit("nap", "0"))
            await late.has_ended.wait()
            (event,) = await asyncio.wait_for(kin.news(), 10)
            quick = await submitting
        assert (event.task_id, event.type) == (quick.id, "task.completed")
        await slow.cancel()
