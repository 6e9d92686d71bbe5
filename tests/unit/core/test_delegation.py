"""Six tools for a model: what they answer, to whatever it asks for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_async.core.context import TaskContext
from hermes_async.core.delegation import NAMES, Delegation
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.core.session import Session
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import ConfigError, StoreUnavailable
from hermes_async.testing import LocalHermes
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def research(ctx: TaskContext, topic: str) -> str:
    """Find and weigh
    sources on a topic."""
    return f"{topic} is good"


@subagent
async def survey(ctx: TaskContext, package: str, *, kind: Literal["fast", "full"] = "fast") -> dict[str, str]:
    """Measure a package."""
    return {"package": package, "kind": kind}


@subagent
async def asks(ctx: TaskContext) -> list[Any]:
    """Ask for a number and then for a word, and return what was said meanwhile, too."""
    number = await ctx.ask("which number?", schema=int)
    word = await ctx.ask("which word?", schema=str)
    return [number, word, *(message.text for message in await ctx.messages())]


@subagent
async def rambles(ctx: TaskContext) -> str:
    return "0123456789" * 100


@subagent
async def sits(ctx: TaskContext, what: str = "") -> None:
    ctx.progress(40, "sitting")
    ctx.partial("p" * 9_000, name="first")
    ctx.partial([1], name="second")
    await asyncio.sleep(60)


@subagent
async def breaks(ctx: TaskContext) -> None:
    raise ValueError("the disk is " + "full " * 1000)


@pytest.fixture
async def hermes(anyio_backend: str) -> AsyncIterator[Hermes]:
    async with LocalHermes(research, survey, asks, rambles, sits, breaks) as hermes:
        yield hermes


@pytest.fixture
def session(hermes: Hermes) -> Session:
    return hermes.session("chat")


@pytest.fixture
def tools(session: Session) -> Delegation:
    return Delegation(session)


async def call(tools: Delegation, name: str, /, **arguments: Any) -> Any:
    return json.loads(await tools.call(name, json.dumps(arguments)))


async def started(tools: Delegation, subagent: str, input: str = "") -> str:
    return str((await call(tools, "delegate", subagent=subagent, input=input))["task_id"])


async def until(tools: Delegation, task_id: str, status: str, question: str | None = None) -> Any:
    """Check a task until it stands there, and return what was said of it."""
    told: Any = None

    async def stands() -> bool:
        nonlocal told
        told = await call(tools, "check", task_id=task_id)
        asked = told.get("question", {}).get("question")
        return told["status"] == status and question in (None, asked)

    await wait_until_async(stands)
    return told


# -- what they do ----------------------------------------------------------------------------------------
async def test_delegate_answers_at_once_and_the_task_goes_its_way(tools: Delegation) -> None:
    began = time.perf_counter()
    told = await call(tools, "delegate", subagent="research", input="tea")
    assert time.perf_counter() - began < 0.5
    assert (told["subagent"], told["status"]) == ("research", "queued")
    assert "You will be told" in told["note"]
    assert await until(tools, told["task_id"], "completed") == {
        "task_id": told["task_id"],
        "subagent": "research",
        "status": "completed",
        "output": "tea is good",
    }


async def test_input_is_a_text_or_arguments_as_text_or_as_they_are(tools: Delegation) -> None:
    whole = {"package": "click", "kind": "full"}
    for input, output in (
        ("click", {"package": "click", "kind": "fast"}),
        (json.dumps(whole), whole),
        (whole, whole),
        (7, {"package": "7", "kind": "fast"}),
    ):
        told = await call(tools, "delegate", subagent="survey", input=input)
        assert (await until(tools, told["task_id"], "completed"))["output"] == output


async def test_a_task_that_is_at_work(tools: Delegation) -> None:
    task_id = await started(tools, "sits", "on the fence\n" * 50)
    await wait_until_async(lambda: _has_partials(tools, task_id))
    told = await call(tools, "check", task_id=task_id)
    assert (told["status"], told["progress"]) == ("running", "40 % sitting")
    assert told["partials"]["second"] == [1]
    assert told["partials"]["first"] == "p" * 3_999 + "…"
    (entry,) = (await call(tools, "list"))["tasks"]
    assert (entry["task_id"], entry["status"], entry["progress"]) == (task_id, "running", "40 % sitting")
    assert len(entry["input"]) == 100 and entry["input"].startswith("on the fence on the fence")
    stopped = await call(tools, "cancel", task_id=task_id)
    assert stopped["status"] == "cancelled" or stopped["cancelling"] is True
    assert "partials" not in await until(tools, task_id, "cancelled")
    assert (await call(tools, "cancel", task_id=task_id))["error"] == "it had ended already"
    sent = await call(tools, "message", task_id=task_id, text="stand up")
    assert sent == {"error": f"task {task_id} has ended: it is cancelled"}


async def _has_partials(tools: Delegation, task_id: str) -> bool:
    return len((await call(tools, "check", task_id=task_id)).get("partials", ())) == 2


async def test_a_question_its_answer_and_a_message(tools: Delegation, session: Session) -> None:
    task_id = await started(tools, "asks")
    asked = (await until(tools, task_id, "input_required", "which number?"))["question"]
    assert asked["answer_schema"] == {"type": "integer"}
    unfit = await call(tools, "answer", task_id=task_id, text="seven", question_id=None)
    assert "is not of type integer; the question is: which number?" in unfit["error"]
    assert (await call(tools, "message", task_id=task_id, text="hurry"))["sent"] is True
    said = await call(tools, "answer", task_id=task_id, text="7", question_id=asked["question_id"])
    assert said == {"task_id": task_id, "answered": True}
    await until(tools, task_id, "input_required", "which word?")
    late = await call(tools, "answer", task_id=task_id, text="8", question_id=asked["question_id"])
    assert "has its answer already" in late["error"]
    await call(tools, "answer", task_id=task_id, text="12")  # a word of digits is a word
    assert (await until(tools, task_id, "completed"))["output"] == [7, "12", "hurry"]
    again = await call(tools, "answer", task_id=task_id, text="8")
    assert again == {"error": f"task {task_id} has ended: it is completed"}


async def test_a_long_output_is_read_piece_by_piece(session: Session) -> None:
    tools = Delegation(session, max_chars=300)
    task_id, pieces, offset = await started(tools, "rambles"), [], 0
    await until(tools, task_id, "completed")
    while offset is not None:
        told = await call(tools, "check", task_id=task_id, offset=offset)
        pieces.append(told["output"])
        offset = told.get("next_offset")
    assert [len(piece) for piece in pieces] == [300, 300, 300, 100]
    assert "".join(pieces) == "0123456789" * 100
    assert (await call(tools, "check", task_id=task_id, offset=5_000))["output"] == ""
    assert (await call(tools, "check", task_id=task_id, offset=-5))["output"] == pieces[0]


async def test_a_task_that_failed_says_why_in_a_sentence(tools: Delegation) -> None:
    told = await until(tools, await started(tools, "breaks"), "failed")
    assert told["reason"] == "error" and told["error"].startswith("ValueError: the disk is full")
    assert len(told["error"]) == 500
    assert "traceback" not in told


async def test_a_list_is_short_and_can_be_of_one_status(tools: Delegation, session: Session) -> None:
    ids = [await started(tools, "research", f"tea {number}") for number in range(21)]
    for task_id in ids:
        await until(tools, task_id, "completed")
    told = await call(tools, "list", status=None)
    assert [entry["input"] for entry in told["tasks"]] == [f"tea {number}" for number in range(20, 0, -1)]
    assert told["more"] is True
    assert await call(tools, "list", status="failed") == {"tasks": []}
    assert "did you mean 'completed'?" in (await call(tools, "list", status="complete"))["error"]


# -- whose tasks -----------------------------------------------------------------------------------------
async def test_tasks_of_other_sessions_are_as_if_they_were_not_there(
    tools: Delegation, hermes: Hermes
) -> None:
    others = Delegation(hermes.session("another chat"))
    foreign, invented = await started(others, "sits"), "t07-" + "0" * 26
    for task_id in (foreign, invented, "nonsense", "x" * 10_000, ""):
        for name, more in {
            "check": {},
            "message": {"text": "x"},
            "answer": {"text": "x"},
            "cancel": {},
        }.items():
            told = await call(tools, name, task_id=task_id, **more)
            assert told == {"error": "you have no task of that id; `list` shows those that you have"}
    assert await call(tools, "list") == {"tasks": []}
    assert (await call(others, "check", task_id=foreign))["status"] in ("queued", "running")


async def test_only_the_parent_s_subagents_can_be_named(session: Session) -> None:
    config = AgentsConfig.model_validate(
        {
            "agents": {
                "boss": {
                    "type": "conversational",
                    "subagents": ({"id": "look", "agent": "research"}, {"id": "now", "agent": "survey"}),
                }
            }
        }
    )
    async with LocalHermes(research, survey, rambles, config=config) as hermes:
        tools = Delegation(hermes.session("chat", parent="boss"))
        assert tools.schemas[0]["function"]["parameters"]["properties"]["subagent"]["enum"] == ["look", "now"]
        refused = await call(tools, "delegate", subagent="rambles", input="")
        assert refused["error"].startswith("agent 'boss' has no subagent 'rambles'")
        assert (await call(tools, "list"))["tasks"] == []
        task_id = await started(tools, "look", "tea")
        assert (await until(tools, task_id, "completed"))["subagent"] == "look"


# -- those that are waited for ---------------------------------------------------------------------------
async def test_a_subagent_that_is_not_async_is_waited_for_and_told_once() -> None:
    async with LocalHermes(research.options(async_=False), asks.options(async_=False), survey) as hermes:
        session = hermes.session("chat")
        tools = Delegation(session)
        told = await call(tools, "delegate", subagent="research", input="tea")
        assert (told["status"], told["output"]) == ("completed", "tea is good")
        assert await session.unread() == 0
        told = await call(tools, "delegate", subagent="asks", input="")
        assert (told["status"], told["question"]["question"]) == ("input_required", "which number?")
        await call(tools, "answer", task_id=told["task_id"], text="1")
        await until(tools, told["task_id"], "input_required", "which word?")
        assert [each.event.data.question for each in await session.pending()] == ["which word?"]
        shown = tools.schemas[0]["function"]["parameters"]["properties"]["subagent"]["description"]
        assert [line.endswith("you wait for it.") for line in shown.splitlines()[1:]] == [True, True, False]


# -- the same call twice ---------------------------------------------------------------------------------
async def test_the_same_call_twice_starts_one_task(tools: Delegation, session: Session) -> None:
    given = '{"subagent": "research", "input": "tea"}'
    first, second = await asyncio.gather(
        *(tools.call("delegate", given, call_id="call_1") for _ in range(2)),
    )
    ids = {json.loads(each)["task_id"] for each in (first, second)}
    assert len(ids) == 1 and len(await session.tasks()) == 1
    again = json.loads(await tools.call("delegate", given, call_id="call_1"))
    assert again["note"] == "This call was made before: it is the same task."
    # Some servers number the calls of each answer anew: another input is another call.
    other = json.loads(await tools.call("delegate", given.replace("tea", "rum"), call_id="call_1"))
    third = json.loads(await tools.call("delegate", given, call_id=""))
    assert len({*ids, other["task_id"], third["task_id"]}) == 3


async def test_calls_of_two_sessions_are_never_one_task() -> None:
    everywhere = research.options(idempotency={"scope": "global"})
    async with LocalHermes(everywhere) as hermes:
        for name in ("one", "another"):
            session = hermes.session(name)
            given = {"subagent": "research", "input": "tea"}
            told = json.loads(await Delegation(session).call("delegate", given, call_id="call_1"))
            assert [task.id for task in await session.tasks()] == [told["task_id"]]


# -- what cannot be done ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("delegate", '{"subagent": "reserch", "input": "x"}', "no agent 'reserch'; did you mean 'research'?"),
        (
            "delegate",
            '{"subagent": "research"}',
            "delegate.input: Field required; delegate takes subagent, input",
        ),
        ("delegate", {"subagent": "survey", "input": "{}"}, "survey: missing a required argument: 'package'"),
        ("delegate", {"subagent": "survey", "input": {"pkg": "x"}}, "survey: missing a required argument"),
        ("delegate", {"subagent": "survey", "input": '{"package": "x", "kid": 1}'}, "unexpected keyword"),
        ("delegate", {"subagent": "survey", "input": {"package": "x", "kind": "no"}}, "survey: kind: "),
        ("delegate", {"subagent": "research", "input": "\ud800"}, "cannot be written as JSON"),
        ("delegate", {"subagent": "research", "input": "x" * 2_000_000}, "pass a reference instead"),
        ("delegate", {"subagent": ["research"], "input": "x"}, "no agent '[\"research\"]'"),
        ("delegate", '{"subagent": "research", ', "the arguments of delegate are not JSON"),
        ("delegate", "[" * 100_000, "the arguments of delegate are not JSON"),
        ("delegate", {"subagent": "research", "input": "[" * 100_000}, None),
        ("delegate", "[1]", "the arguments of delegate are not a JSON object"),
        ("check", None, "check.task_id: Field required; check takes task_id, offset"),
        ("check", {"task_id": "x", "offset": "soon"}, "check.offset: "),
        ("list", {"state": "running"}, "list.state: Extra inputs are not permitted; list takes status"),
        ("chek", {}, "there is no tool 'chek'; did you mean 'check'?"),
        ("_call", {}, "there is no tool '_call'"),
    ],
)
async def test_what_does_not_fit_is_told_in_a_sentence(
    tools: Delegation, name: str, arguments: Any, sentence: str | None
) -> None:
    told = json.loads(await tools.call(name, arguments))
    assert ("error" in told) is (sentence is not None)
    assert (sentence or "") in told.get("error", "")
    assert len(told.get("error", "")) <= 500


PARAMETERS = ("subagent", "input", "task_id", "text", "question_id", "offset", "status")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(
    name=st.sampled_from(NAMES) | st.text(st.characters()),
    known=st.fixed_dictionaries({}, optional=dict.fromkeys(PARAMETERS, JSON)),
    as_text=st.booleans(),
    call_id=st.none() | st.text(st.characters()),
)
def test_whatever_a_model_says_it_gets_an_answer(
    name: str, known: dict[str, Any], as_text: bool, call_id: str | None
) -> None:
    async def ask() -> str:
        async with LocalHermes(research, survey) as hermes:
            tools = Delegation(hermes.session("chat"))
            return await tools.call(name, json.dumps(known) if as_text else known, call_id=call_id)

    told = asyncio.run(ask())
    assert isinstance(json.loads(told), dict)
    assert len(told.encode()) < 2_000


async def test_a_limit_says_no_in_words_for_a_model() -> None:
    config = AgentsConfig.model_validate({"limits": {"max_running": 1, "max_queued": 1}})
    async with LocalHermes(sits, config=config) as hermes:
        tools = Delegation(hermes.session("chat"))
        answers = [await call(tools, "delegate", subagent="sits", input="") for _ in range(3)]
        assert "1 tasks wait already, which is the limit" in answers[-1]["error"]


class Broken:
    """A session of which every use raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


async def test_whatever_goes_wrong_the_conversation_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = StoreUnavailable("Redis at localhost:1 cannot be reached")
    assert await Delegation(Broken(away)).cancel("t07-0") == {"error": str(away)}
    told = await Delegation(Broken(ZeroDivisionError("x"))).cancel("t07-0")
    assert told == {"error": "cancel failed (ZeroDivisionError); go on without it"}
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(asyncio.CancelledError):
        await Delegation(Broken(asyncio.CancelledError())).cancel("t07-0")


async def test_a_subagent_that_cannot_be_run_is_told_to_the_developer_and_to_the_model() -> None:
    config = AgentsConfig.model_validate(
        {
            "agents": {
                "boss": {"type": "conversational", "subagents": ({"id": "ghost", "agent": "ghost"},)},
                "ghost": {"run": "no_such_module:ghost"},
            }
        }
    )
    async with LocalHermes(research, config=config) as hermes:
        tools = Delegation(hermes.session("chat", parent="boss"))
        with pytest.raises(ConfigError, match="no_such_module"):
            _ = tools.functions
        assert "no_such_module" in (await tools.delegate("ghost", ""))["error"]
        assert (
            "no_such_module" in (await Delegation(hermes.session("chat")).delegate("research", "x"))["error"]
        )
        assert await hermes.tasks() == []  # what is said to have failed was not started


# -- how frameworks see them -----------------------------------------------------------------------------
def test_schemas_are_strict_and_name_the_subagents() -> None:
    registry = Registry(AgentsConfig(), [research, survey])
    tools = Delegation(_only(registry))
    said = {each["function"]["name"]: each["function"] for each in tools.schemas}
    assert tuple(said) == NAMES
    tools.schemas[0]["function"]["parameters"].clear()  # as some frameworks do, and worse
    assert tools.schemas == [{"type": "function", "function": function} for function in said.values()]
    for function in said.values():
        parameters = function["parameters"]
        assert function["strict"] is True and 20 < len(function["description"]) < 200
        assert parameters["additionalProperties"] is False
        assert set(parameters["required"]) == set(parameters["properties"])
        assert not {"default", "title"} & set(_keys(parameters))
    subagent = said["delegate"]["parameters"]["properties"]["subagent"]
    assert subagent["enum"] == ["research", "survey"]
    assert subagent["description"].splitlines() == [
        "Which one:",
        "- research: Find and weigh sources on a topic. Input: text, the topic.",
        '- survey: Measure a package. Input: text, the package, or JSON of the shape {"package": string, '
        '"kind"?: "fast" | "full"}.',
    ]


def _only(registry: Registry) -> Any:
    class Stub:
        def subagents(self) -> Any:
            return registry.subagents(None)

    return Stub()


def _keys(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        return [*schema, *(key for value in schema.values() for key in _keys(value))]
    return [key for value in schema for key in _keys(value)] if isinstance(schema, list) else []


async def test_functions_are_plain_and_their_answers_print_as_json(tools: Delegation) -> None:
    delegate, check, *_ = tools.functions
    assert [asyncio.iscoroutinefunction(function) for function in tools.functions] == [True] * 6
    told = await delegate("research", input="tea")
    assert isinstance(told, dict) and json.loads(str(told)) == told
    assert (await check(task_id=told["task_id"]))["task_id"] == told["task_id"]
