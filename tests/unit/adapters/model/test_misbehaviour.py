"""Whatever a model's server does, a run of a declared agent ends in one sentence that says what and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hermes_async import TaskFailed
from tests.support.model import Reply, ScriptedModel, broken, call, raw, say, status
from tests.support.thinking import TOOLS, Start, dispatched, told

pytestmark = pytest.mark.anyio


def stream(*chunks: Any) -> Reply:
    """An event stream of these chunks, whatever they are."""
    return raw(
        "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)
    )


def chunk(**more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **more}


def piece(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return chunk(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])


CUT_CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "capital", "arguments": '{"cou'}}
#: What the server does, how often it is asked within an attempt, and what the task says of it.
FAULTS = {
    "500": (status(500), 3, r"\(HTTP 500\) has failed \(scripted 500\)"),
    "503": (status(503), 3, r"\(HTTP 503\) is overloaded \(scripted 503\)"),
    "503 for long": (status(503, retry_after="3600"), 1, "is overloaded .*, and asks to wait 3600 s"),
    "broken": (broken(), 3, "has broken off the connection"),
    "html": (raw("<html>Hello", "text/html"), 1, "gives no answer of use .*: check `model` and `base_url`"),
    "empty": (raw(""), 1, "gives no answer of use"),
    "no json": (stream("{oops"), 1, "has failed .Failed to decode response as JSON"),
    "a list": (stream([1]), 1, "gives no answer of use .AttributeError"),
    "a null": (stream(chunk(choices=[None])), 1, "gives no answer of use .AttributeError"),
    "an error": (stream({"error": {"message": "full", "code": 503}}), 3, r"is overloaded \(full\)"),
    "no choice": (stream(chunk(choices=[]), "[DONE]"), 4, "it says nothing, however often"),
    "silence": (say(), 4, "it says nothing, however often"),
    "no tokens": (say(finish="length"), 1, "its limit of tokens in silence: raise `max_tokens`"),
    "no tokens in a call": (
        stream(piece(tool_calls=[CUT_CALL]), piece("length"), "[DONE]"),
        4,
        "its limit of tokens in a tool call: raise `max_tokens`",
    ),
    "filter": (say(finish="content_filter"), 1, "says nothing: a content filter has stopped it$"),
    "arguments": (Reply(calls=(("capital", "x"),)), 4, "gives no answer of use .Tool 'capital'"),  # type: ignore[arg-type]
    "unknown tool": (call("nope"), 4, "gives no answer of use .Tool 'nope'"),
    "302": (Reply(status=302, headers={"location": "/"}), 1, "has failed .Error code: 302"),
    "418": (status(418), 1, r"\(HTTP 418\) has failed \(scripted 418\)"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_one_sentence(start: Start, scripted: ScriptedModel, name: str) -> None:
    fault, requests, sentence = FAULTS[name]
    scripted.then(*[fault] * 5)
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        handle = await dispatched(hermes, "Where?")
        with pytest.raises(TaskFailed, match=sentence) as failed:
            await handle
    error = failed.value.error
    assert error is not None
    assert error.message.startswith(f"model 'gpt-4o-mini' at {scripted.url} ")
    assert "\n" not in error.message
    assert error.traceback == ""  # of a library: there is nothing in it that could be mended
    assert len(scripted.requests) == requests


@pytest.mark.parametrize(
    "fault",
    [broken("So far "), stream(piece(content="So far "), "{oops"), stream(piece(content="So far "), [1])],
)
async def test_what_was_said_before_a_fault_is_kept_and_not_said_again(
    start: Start, scripted: ScriptedModel, fault: Reply
) -> None:
    scripted.then(fault, say("never"))
    async with start() as hermes:
        handle = await dispatched(hermes, "Where?")
        with pytest.raises(TaskFailed, match=f"at {scripted.url} "):
            await handle
        assert (await handle.task()).partials == {"output": "So far "}
    assert len(scripted.requests) == 1


async def test_silence_before_the_first_byte_ends_and_is_asked_again(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.script(lambda request: say("late", delay=60.0 if len(scripted.requests) == 1 else 0.0))
    async with start(settings={"timeout": 1.0}) as hermes:
        handle = await dispatched(hermes, "Where?")
        assert await handle == "late"
        first, *_ = await told(handle, "task.progress")
    assert first.message == "the model does not answer in time; asked again in 0.5 s"


async def test_a_wrong_address_can_be_seen_and_no_secret_in_it(start: Start) -> None:
    async with start(base_url="http://me:secret@127.0.0.1:9/v1?key=secret", api_key="secret") as hermes:
        handle = await dispatched(hermes, "Where?")
        with pytest.raises(TaskFailed, match=r"\(Connection refused\): check `base_url`$") as failed:
            await handle
        waits = [data.message for data in await told(handle, "task.progress")]
    assert failed.value.error is not None
    where = "model 'gpt-4o-mini' at http://***@127.0.0.1:9/v1 cannot be reached"
    assert failed.value.error.message.startswith(where)
    assert "secret" not in str(failed.value.error)
    assert waits == [f"the model cannot be reached; asked again in {wait} s" for wait in ("0.5", "1")]


async def test_each_wait_is_told_once(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(status(429), status(429, retry_after="1"), say("Paris."))
    async with start() as hermes:
        handle = await dispatched(hermes, "Where?")
        assert await handle == "Paris."
        progress = [data.message for data in await told(handle, "task.progress")]
        task = await handle.task()
    assert progress == [f"the model is busy; asked again in {seconds} s" for seconds in (2, 1)]
    assert task.usage is not None and task.usage.requests == 1


@pytest.mark.parametrize(
    ("reason", "told_of_it"),
    [
        ("length", ["the answer is not whole: the model has reached its limit of tokens"]),
        ("content_filter", ["the answer is not whole: a content filter has stopped the model"]),
        ("stop", []),
    ],
)
async def test_an_answer_that_is_cut_short_is_the_result_and_that_is_told(
    start: Start, scripted: ScriptedModel, reason: str, told_of_it: list[str]
) -> None:
    scripted.then(say("So far ", finish=reason))
    async with start() as hermes:
        handle = await dispatched(hermes, "Where?")
        assert await handle == "So far "
        assert [data.message for data in await told(handle, "task.progress")] == told_of_it
