"""What an agent asks and is told, through the whole core over memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from hermes_async import testing
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.agent import AgentsConfig, GateLimits
from hermes_async.domain.errors import InvalidInput, NotTaken, QuestionTimeout, TaskFailed
from hermes_async.domain.failure import Reason
from hermes_async.domain.question import Answer
from hermes_async.domain.task import TaskStatus
from hermes_async.sdk import TaskContext
from hermes_async.testing import LocalHermes
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio
S = TaskStatus


class Place(BaseModel):
    region: Literal["eu", "us"]
    zone: int


@subagent
async def ask(ctx: TaskContext, times: int = 1) -> list[Any]:
    return [await ctx.ask(f"number {n}?") for n in range(times)]


@subagent
async def ask_place(ctx: TaskContext) -> str:
    place = await ctx.ask("Where?", schema=Place)
    return f"{type(place).__name__} {place.region} {place.zone + 1}"


@subagent
async def ask_date(ctx: TaskContext) -> int:
    return (await ctx.ask("When?", schema=date)).year


@subagent
async def ask_soon(ctx: TaskContext, default: Any = "none") -> Any:
    more = {} if default == "none" else {"default": default}
    return await ctx.ask("Which?", schema={"type": "integer"}, timeout=0.05, **more)


@subagent
async def ask_after_work(ctx: TaskContext) -> Any:
    await asyncio.sleep(2)
    return await ctx.ask("Which?", timeout=60)


@asynccontextmanager
async def asking(agent: Subagent[..., Any], *args: Any, **how: Any) -> AsyncIterator[TaskHandle[Any]]:
    """A task that has asked."""
    async with LocalHermes(agent, **how) as hermes:
        handle = await dispatched(hermes, agent, *args)
        await until_asked(handle)
        yield handle


async def dispatched(hermes: Hermes, agent: Subagent[..., Any], *args: Any) -> TaskHandle[Any]:
    return await hermes.session("chat").dispatch(agent, *args)


async def until_asked(handle: TaskHandle[Any], question: str = "") -> None:
    async def is_asked() -> bool:
        task = await handle.task()
        return task.question is not None and question in task.question.question

    await wait_until_async(is_asked)


async def types(handle: TaskHandle[Any]) -> list[str]:
    return [event.type.removeprefix("task.") async for event in handle.events()]


async def soon(waiting: Any) -> Any:
    async with asyncio.timeout(5):
        return await waiting


async def test_the_answer_is_what_ask_returns() -> None:
    async with asking(ask) as handle:
        assert (await handle.task()).status is S.INPUT_REQUIRED
        assert await handle.answer({"any": ["json", None]})
        assert await soon(handle) == [{"any": ["json", None]}]
        assert await types(handle) == ["queued", "started", "input_required", "resumed", "completed"]


async def test_a_model_comes_back_as_itself() -> None:
    async with asking(ask_place) as handle:
        question = (await handle.task()).question
        assert question is not None and question.answer_schema == Place.model_json_schema()
        with pytest.raises(
            InvalidInput, match="'region' of the answer is none of 'eu', 'us'; the question is"
        ):
            await handle.answer({"region": "asia", "zone": 1})
        await handle.answer({"region": "eu", "zone": 1})
        assert await soon(handle) == "Place eu 2"


async def test_what_only_pydantic_can_refuse_is_asked_again() -> None:
    async with asking(ask_date) as handle:
        await handle.answer("tomorrow")

        async def asked_again() -> bool:
            question = (await handle.task()).question
            return question is not None and "valid date" in str(question.problem)

        await wait_until_async(asked_again)
        await handle.answer("2026-11-25")
        assert await soon(handle) == 2026


async def test_the_first_answer_counts_and_the_others_hear_so() -> None:
    async with asking(ask) as handle:
        question = (await handle.task()).question
        assert question is not None
        answers = [handle.answer(n, question.question_id) for n in range(5)]
        done = await asyncio.gather(*answers, return_exceptions=True)
        assert done.count(True) == 1
        assert {str(each) for each in done if each is not True} == {
            f"question {question.question_id} of task {handle.id} has its answer already: somebody was first"
        }
        assert await soon(handle) == [done.index(True)]
        with pytest.raises(NotTaken, match="has ended: it is completed"):
            await handle.answer("late")


async def test_nothing_asked_is_nothing_to_answer() -> None:
    async with asking(ask, 2) as handle:
        with pytest.raises(NotTaken, match="does not ask '9-x' now, but 1-"):
            await handle.answer("x", "9-x")
        with pytest.raises(InvalidInput, match="bytes of JSON"):
            await handle.answer("x" * 70_000)
        await handle.answer("one")
        await until_asked(handle, "number 1")
        await handle.answer("two")
        assert await soon(handle) == ["one", "two"]


async def test_a_default_is_the_answer_when_nobody_gives_one() -> None:
    async with LocalHermes(ask_soon) as hermes:
        handle = await dispatched(hermes, ask_soon, 7)
        assert await soon(handle) == 7
        task = await handle.task()
        assert [answer.by for answer in task.answers.values()] == ["default"]
        assert await soon(await dispatched(hermes, ask_soon.options(retry_limit=0), 0)) == 0


async def test_without_a_default_the_agent_hears_that_nobody_answered() -> None:
    async with LocalHermes(ask_soon) as hermes:
        handle = await dispatched(hermes, ask_soon)
        with pytest.raises(TaskFailed, match="nobody has answered 'Which"):
            await soon(handle)
        task = await handle.task()
        assert task.error is not None and task.error.type == QuestionTimeout.__name__
        assert [task.question, task.answers] == [None, {}]


async def test_a_default_must_fit() -> None:
    async with LocalHermes(ask_soon) as hermes:
        with pytest.raises(TaskFailed, match="not of type integer"):
            await soon(await dispatched(hermes, ask_soon, "seven"))


@subagent
async def ask_oddly(ctx: TaskContext) -> None:
    await ctx.ask("?", schema=asyncio.Lock)


async def test_a_schema_must_be_one() -> None:
    async with LocalHermes(ask_oddly) as hermes:
        with pytest.raises(TaskFailed, match="a type with a JSON form, or JSON Schema, not <class 'asyncio"):
            await soon(await dispatched(hermes, ask_oddly))


@subagent
async def ask_both(ctx: TaskContext) -> list[Any]:
    return list(await asyncio.gather(ctx.ask("this?"), ctx.ask("that?")))


async def test_branches_that_ask_take_turns() -> None:
    async with asking(ask_both) as handle:
        await until_asked(handle, "this")
        await handle.answer(1)
        await until_asked(handle, "that")
        await handle.answer(2)
        assert await soon(handle) == [1, 2]


@subagent(timeout=0.3, idle_timeout=0.3)
async def ask_slowly(ctx: TaskContext, work: float) -> Any:
    answer = await ctx.ask("Which?")
    await asyncio.sleep(work)
    return answer


async def test_the_time_of_the_answer_is_not_the_task_s() -> None:
    async with asking(ask_slowly, 0.05) as handle:
        await asyncio.sleep(0.7)
        await handle.answer("late")
        assert await soon(handle) == "late"


async def test_after_the_answer_its_own_time_goes_on() -> None:
    async with asking(ask_slowly, 60) as handle:
        await handle.answer("x")
        with pytest.raises(TaskFailed) as failed:
            await soon(handle)
        assert failed.value.reason in (Reason.TIMEOUT, Reason.IDLE_TIMEOUT)


async def test_the_time_of_its_whole_life_goes_on_while_it_asks() -> None:
    async with asking(ask.options(total_timeout=0.3)) as handle:
        with pytest.raises(TaskFailed) as failed:
            await soon(handle)
        assert failed.value.reason is Reason.TOTAL_TIMEOUT
        assert (await types(handle))[2:] == ["input_required", "failed"]


@pytest.mark.parametrize("limits", [{"slots": 1}, {"config": AgentsConfig(limits=GateLimits(max_running=1))}])
async def test_who_asks_holds_nothing(limits: dict[str, Any]) -> None:
    async with LocalHermes(ask, **limits) as hermes:
        handles = [await dispatched(hermes, ask) for _ in range(5)]
        for handle in handles:
            await until_asked(handle)
        for number, handle in enumerate(handles):
            await handle.answer(number)
        assert await soon(asyncio.gather(*handles)) == [[n] for n in range(5)]
        assert (await hermes.traffic()).admitted == {"async": 0, "process": 0}


@subagent
async def ask_briefly(ctx: TaskContext) -> str:
    try:
        async with asyncio.timeout(0.1):
            await ctx.ask("Which?")
    except TimeoutError:
        await asyncio.sleep(0.2)
    return "done"


async def test_who_stops_asking_goes_on_with_a_place() -> None:
    async with asking(ask_briefly) as handle:

        async def goes_on() -> bool:
            return (await handle.task()).status is S.RUNNING

        await wait_until_async(goes_on)
        with pytest.raises(NotTaken, match="asks nothing now; it is running"):
            await handle.answer("late")
        assert await soon(handle) == "done"
        assert "resumed" in await types(handle)


@subagent
async def ask_otherwise(ctx: TaskContext) -> Any:
    try:
        async with asyncio.timeout(0.05):
            await ctx.ask("Which?")
    except TimeoutError:
        return await ctx.ask("Which, then?")


@subagent
async def ask_otherwise_beside(ctx: TaskContext) -> Any:
    """Its place is not asked for again in between, for another branch is aside."""
    listening = asyncio.create_task(ctx.messages(60))
    await asyncio.sleep(0)
    answer = await ask_otherwise.function(ctx)
    listening.cancel()
    return answer


@pytest.mark.parametrize("agent", [ask_otherwise, ask_otherwise_beside], ids=["alone", "beside"])
async def test_who_stops_asking_may_ask_something_else(agent: Subagent[..., Any]) -> None:
    async with asking(agent) as handle:
        await until_asked(handle, "then")
        await handle.answer("this")
        assert await soon(handle) == "this"
        assert (await handle.task()).attempt == 1


@pytest.mark.parametrize("answered", [False, True])
async def test_a_cancel_ends_who_asks(answered: bool) -> None:
    async with asking(ask, 2) as handle:
        if answered:
            await handle.answer(1)
            await until_asked(handle, "number 1")
        await handle.cancel()
        task = await soon(handle.ended())
        assert (task.status, task.question) == (S.CANCELLED, None)
        assert (await types(handle))[-2:] == ["cancel_requested", "cancelled"]


@subagent(retry_limit=1)
async def ask_and_fail_once(ctx: TaskContext) -> Any:
    answer = await ctx.ask("Which?", schema=str)
    if ctx.attempt == 1:
        raise ValueError(answer)
    return answer, await ctx.ask("And?", schema=str)


async def test_a_later_attempt_does_not_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "SWEEP_EVERY", 0.01)
    async with asking(ask_and_fail_once) as handle:
        await handle.answer("this")
        await until_asked(handle, "And?")
        await handle.answer("that")
        assert await soon(handle) == ["this", "that"]
        assert (await types(handle)).count("input_required") == 2
        assert set((await handle.task()).answers.values()) == {
            Answer(question_id=id, answer=value)
            for id, value in zip((await handle.task()).answers, ("this", "that"), strict=True)
        }


# -- in a def --------------------------------------------------------------------------------------------
@subagent
def ask_in_def(ctx: TaskContext) -> list[str]:
    return [ctx.wait(ctx.ask, "Which?", schema=str), *(m.text for m in ctx.wait(ctx.messages))]


@subagent
def ask_without_waiting(ctx: TaskContext) -> Any:
    return ctx.ask("Which?")


@subagent
def dispatch_without_waiting(ctx: TaskContext) -> Any:
    return ctx.dispatch("anybody")


@subagent
def dispatch_many_without_waiting(ctx: TaskContext) -> Any:
    return ctx.dispatch_many("anybody", [{}])


@subagent
async def wait_in_async(ctx: TaskContext) -> Any:
    return ctx.wait(ctx.ask, "Which?")


async def test_a_def_waits_for_its_answer() -> None:
    async with asking(ask_in_def) as handle:
        await handle.send("hello")
        await handle.answer("this")
        assert await soon(handle) == ["this", "hello"]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (ask_without_waiting, "in a `def`, write `ctx.wait\\(ctx.ask, ...\\)` instead of `ctx.ask\\(...\\)`"),
        (dispatch_without_waiting, "in a `def`, write `ctx.wait\\(ctx.dispatch, ...\\)` instead of"),
        (
            dispatch_many_without_waiting,
            "in a `def`, write `ctx.wait\\(ctx.dispatch_many, ...\\)` instead of",
        ),
        (wait_in_async, "in an `async def`, write `await` instead of `ctx.wait`"),
    ],
)
async def test_the_wrong_way_to_wait_is_told(agent: Subagent[..., Any], told: str) -> None:
    async with LocalHermes(agent) as hermes:
        with pytest.raises(TaskFailed, match=told):
            await soon(await dispatched(hermes, agent))


# -- messages --------------------------------------------------------------------------------------------
@subagent
async def listen(ctx: TaskContext, count: int, wait: float = 5.0) -> list[tuple[str, Any]]:
    heard: list[tuple[str, Any]] = []
    ctx.partial("ready")
    while len(heard) < count and (messages := await ctx.messages(wait)):
        heard += [(message.text, message.data) for message in messages]
    return heard


async def test_messages_reach_a_running_agent_once_and_in_order() -> None:
    async with LocalHermes(listen, slots=1) as hermes:
        handle = await dispatched(hermes, listen, 3)
        await handle.send("one")
        await handle.send("two", {"a": 1})
        await soon(await dispatched(hermes, listen, 0))  # there is one slot, and who waits has none
        await handle.send("three")
        assert await soon(handle) == [("one", None), ("two", {"a": 1}), ("three", None)]
        assert (await types(handle)).count("message_applied") == 3
        with pytest.raises(NotTaken, match="has ended"):
            await handle.send("late")


async def test_who_hears_nothing_goes_on() -> None:
    async with LocalHermes(listen) as hermes:
        assert await soon(await dispatched(hermes, listen, 1, 0.05)) == []
        assert await soon(await dispatched(hermes, listen, 1, 0.0)) == []


async def test_a_message_has_its_limit() -> None:
    async with asking(ask) as handle:
        with pytest.raises(InvalidInput, match="bytes of JSON"):
            await handle.send("x" * 70_000)


async def test_the_time_for_an_answer_begins_with_the_question() -> None:
    async with asking(ask_after_work) as handle:
        task = await handle.task()
        asked = await anext(event async for event in handle.events() if event.type == "task.input_required")
        assert task.question is not None
        assert task.question.expires_at is not None
        assert task.question.expires_at - asked.time > 59  # its work has taken two seconds
