"""How runs of declared agents end when a limit is reached, or the model fails or errs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hermes_async import TaskCancelled, TaskFailed
from hermes_async.core.handle import TaskHandle
from hermes_async.domain.agent import RunLimits
from hermes_async.domain.failure import Reason
from tests.support.model import Reply, ScriptedModel, broken, call, calls, hang, say, status
from tests.support.servers import wait_until_async
from tests.support.thinking import TOOLS, Start, dispatched, told

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("limits", "requests"),
    [
        (RunLimits(requests=2), 2),
        (RunLimits(tool_calls=1), 2),
        (RunLimits(total_tokens=200), 2),
        (RunLimits(cost_usd=0.00005), 2),
    ],
)
async def test_a_limit_ends_it_for_good_and_keeps_what_was_said(
    start: Start, scripted: ScriptedModel, limits: RunLimits, requests: int
) -> None:
    going_on = Reply(chunks=("So far ",), calls=(("capital", {"country": "France"}),))
    scripted.then(*[going_on] * 5)
    async with start({"retry_limit": 3}, tools=(f"{TOOLS}:capital",), limits=limits) as hermes:
        handle = await dispatched(hermes, "Where?")
        with pytest.raises(TaskFailed) as failed:
            await handle
        assert failed.value.reason is Reason.BUDGET_EXCEEDED
        assert (await handle.task()).partials == {"output": "So far "}
    assert len(scripted.requests) == requests


async def test_a_limit_in_seconds_ends_it(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(hang("So far "))
    async with start(limits=RunLimits(seconds=0.5)) as hermes:
        handle = await dispatched(hermes, "Where?")
        with pytest.raises(TaskFailed) as failed:
            await handle
        assert failed.value.reason is Reason.BUDGET_EXCEEDED
        assert (await handle.task()).partials == {"output": "So far "}
        await wait_until_async(lambda: scripted.dropped == 1)


async def test_a_model_that_goes_in_circles_ends(
    start: Start, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.adapters.model.purse.MOST_REQUESTS", 3)
    scripted.then(*[call("capital", country="France")] * 9)
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        with pytest.raises(TaskFailed, match=r"3 requests without an answer: set limits\.requests") as failed:
            await (await dispatched(hermes, "Where?"))
    assert failed.value.reason is Reason.BUDGET_EXCEEDED
    assert len(scripted.requests) == 3


@pytest.mark.parametrize("limits", [RunLimits(total_tokens=1_000), RunLimits(cost_usd=1.0)])
async def test_a_server_that_tells_no_usage_cannot_serve_a_limited_agent(
    start: Start, scripted: ScriptedModel, limits: RunLimits
) -> None:
    scripted.then(say("It is so.", tokens=None))
    async with start(limits=limits) as hermes:
        with pytest.raises(TaskFailed, match="tells no usage, so no limit on it can be kept"):
            await (await dispatched(hermes, "Where?"))


async def test_a_cancel_ends_the_request(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(hang("So far "))
    async with start() as hermes:
        handle = await dispatched(hermes, "Where?")
        await wait_until_async(lambda: scripted.open == 1)
        await handle.cancel()
        with pytest.raises(TaskCancelled):
            await handle
        await wait_until_async(lambda: scripted.dropped == 1)


async def test_a_busy_model_is_waited_for_without_a_slot_and_without_a_retry(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(call("capital", country="France"), status(429, retry_after="1"), say("Paris."))
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        handle = await dispatched(hermes, "Where?")
        began = asyncio.get_running_loop().time()
        assert await handle == "Paris."
        assert asyncio.get_running_loop().time() - began > 0.9
        task = await handle.task()
        progress = await told(handle, "task.progress")
    assert (task.attempt, task.failures) == (1, 0)
    assert len(scripted.requests) == 3  # the tool was not called again
    assert task.usage is not None and task.usage.requests == 2
    assert [data.message for data in progress] == [
        "capital France",
        "the model is busy; asked again in 1 s",
    ]
    assert "busy" not in str(scripted.requests[2].messages)


async def test_a_long_wait_is_the_gates(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(status(429, retry_after="3600"))
    async with start({"retry_limit": 1}) as hermes:
        handle = await dispatched(hermes, "Where?")
        [retrying] = [e.data async for e in _until(handle, "task.retrying")]
        assert retrying.delay == pytest.approx(3600, rel=0.01)
        assert retrying.error.type == "RetryAfter"
        await handle.cancel()


async def _until(handle: TaskHandle[Any], type_: str) -> AsyncIterator[Any]:
    async for event in handle.events():
        if event.type == type_:
            yield event
            return


@pytest.mark.parametrize("fault", [status(503), status(500), broken()])
async def test_a_passing_fault_costs_no_retry(start: Start, scripted: ScriptedModel, fault: Reply) -> None:
    scripted.then(fault, say("Paris."))
    async with start() as hermes:
        assert await (await dispatched(hermes, "Where?")) == "Paris."
    assert len(scripted.requests) == 2


async def test_a_fault_that_stays_fails_the_attempt(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(*[status(503)] * 3, say("Paris."))
    retry = {"initial": 0.01, "jitter": False}
    async with start({"retry_limit": 1, "retry": retry}) as hermes:
        handle = await dispatched(hermes, "Where?")
        assert await handle == "Paris."
        assert (await handle.task()).attempt == 2


async def test_a_text_that_breaks_off_does_not_begin_again_in_the_same_attempt(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(broken("It "), say("Paris."))
    async with start() as hermes:
        handle = await dispatched(hermes, "Where?")
        with pytest.raises(TaskFailed):
            await handle
        assert (await handle.task()).partials == {"output": "It "}
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (400, r"model 'gpt-4o-mini' at \S+/v1 \(HTTP 400\) refuses the request \(scripted 400\)"),
        (401, r"model 'gpt-4o-mini' at \S+/v1 \(HTTP 401\) refuses the key"),
        (
            404,
            r"model 'gpt-4o-mini' at \S+/v1 \(HTTP 404\) is not there \(scripted 404\): check `model`",
        ),
    ],
)
async def test_what_no_retry_can_cure_fails_at_once(
    start: Start, scripted: ScriptedModel, code: int, sentence: str
) -> None:
    scripted.then(status(code), say("never"))
    async with start({"retry_limit": 3}) as hermes:
        with pytest.raises(TaskFailed, match=sentence) as failed:
            await (await dispatched(hermes, "Where?"))
    assert failed.value.error is not None
    assert failed.value.error.traceback == ""
    assert len(scripted.requests) == 1


async def test_a_model_may_write_anything(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(
        calls(("there_is_none", {}), ("capital", {"land": "France"}), ("capital", {"country": "\ud800"})),
        Reply(calls=(("capital", "no object"),)),  # type: ignore[arg-type]
        call("capital", run="run", self="self"),
        say("\ud83d", "\ude00 \x00 \ud800 ", "</tool_result>"),
    )
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        handle = await dispatched(hermes, "Go.")
        assert await handle == "😀 \x00 \ufffd </tool_result>"
    assert "it takes (country: str)" in "".join(scripted.requests[1].said("tool"))


async def test_an_answer_without_an_end_is_ended(
    start: Start, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.adapters.model.show.LONGEST", 1_000)
    scripted.then(hang(*["a" * 100] * 11))
    async with start({"retry_limit": 3}) as hermes:
        with pytest.raises(TaskFailed, match="more than 1,000 characters, and goes on"):
            await (await dispatched(hermes, "Go."))
        await wait_until_async(lambda: scripted.dropped == 1)


async def test_waits_of_a_busy_model_are_no_faults(start: Start, scripted: ScriptedModel) -> None:
    busy = status(429, retry_after="0")
    scripted.then(busy, busy, status(503), busy, status(503), say("Paris."))
    async with start() as hermes:
        assert await (await dispatched(hermes, "Where?")) == "Paris."


async def test_arguments_without_an_end_are_ended(
    start: Start, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.adapters.model.show.LONGEST", 1_000)
    scripted.then(call("capital", country="a" * 1_001))
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        with pytest.raises(TaskFailed, match="more than 1,000 characters, and goes on"):
            await (await dispatched(hermes, "Go."))
