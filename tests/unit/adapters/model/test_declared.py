"""Declared agents over memory, with a model behind a real socket."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from hermes_async import TaskCancelled, TaskContext, TaskFailed, subagent
from hermes_async.adapters.agents_file import load
from hermes_async.adapters.model.declared import DeclaredAgents, description
from hermes_async.adapters.model.show import KEPT, WINDOW
from hermes_async.bootstrap import registry
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import AgentsConfig, AgentSpec, RunLimits, SubagentSpec
from hermes_async.domain.errors import ConfigError
from hermes_async.domain.failure import Reason
from hermes_async.settings import Settings
from hermes_async.testing import LocalHermes
from tests.support.model import Reply, Request, ScriptedModel, broken, call, calls, hang, say, status
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio

TOOLS = "tests.support.lookups"
Start = Callable[..., AbstractAsyncContextManager[Hermes]]


@pytest.fixture
def start(scripted: ScriptedModel) -> Start:
    """A Hermes whose parent `boss` calls `research`, which the scripted model runs."""

    @asynccontextmanager
    async def started(use: dict[str, Any] | None = None, **agent: Any) -> AsyncIterator[Hermes]:
        research = AgentSpec(**{"model": "gpt-4o-mini", "base_url": scripted.url, **agent})
        uses = SubagentSpec.model_validate(
            {"id": "research", "agent": "research", "timeout": 20.0, **(use or {})}
        )
        config = AgentsConfig(
            agents={"boss": AgentSpec(type="conversational", subagents=(uses,)), "research": research}
        )
        async with LocalHermes(config=config) as hermes:
            yield hermes

    return started


async def dispatched(hermes: Hermes, *args: Any, **named: Any) -> TaskHandle[Any]:
    return await hermes.session("chat", parent="boss").dispatch("research", *args, **named)


async def told(handle: TaskHandle[Any], type_: str) -> list[Any]:
    return [event.data async for event in handle.events() if event.type == type_]


async def test_it_answers_and_its_text_is_shown_as_it_comes(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("It ", "is ", "so.", pause=0.3))
    async with start(instructions="Be brief.") as hermes:
        handle = await dispatched(hermes, "Is it?")
        assert await handle == "It is so."
        assert [data.value for data in await told(handle, "task.partial")] == ["It ", "It is ", "It is so."]
    request = scripted.requests[0]
    assert (request.said("system"), request.said("user")) == (["Be brief."], ["Is it?"])


@pytest.mark.parametrize(
    ("args", "named", "asked"),
    [
        (("chips",), {}, "chips"),
        ((), {"input": "chips"}, "chips"),
        ((), {"topic": "chips", "depth": 2}, "topic: chips\ndepth: 2"),
        (("Weigh it.",), {"sources": ["a", "b"]}, 'Weigh it.\n\nsources: ["a", "b"]'),
    ],
)
async def test_a_text_or_named_values_are_what_it_is_asked(
    start: Start, scripted: ScriptedModel, args: Any, named: Any, asked: str
) -> None:
    scripted.then(say("."))
    async with start() as hermes:
        await (await dispatched(hermes, *args, **named))
    assert scripted.requests[0].last == asked


async def test_without_anything_to_do_it_fails_at_once(start: Start, scripted: ScriptedModel) -> None:
    async with start({"retry_limit": 2}) as hermes:
        with pytest.raises(TaskFailed, match="research has nothing to do: give it an `input`"):
            await (await dispatched(hermes))
    assert scripted.requests == []


async def test_tools_are_called_and_told(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(
        calls(("capital", {"country": "France"}), ("population", {"city": "Paris"})), say("2 million.")
    )
    async with start(tools=(f"{TOOLS}:capital", f"{TOOLS}:population")) as hermes:
        handle = await dispatched(hermes, "How many?")
        assert await handle == "2 million."
        progress = await told(handle, "task.progress")
    assert [data.message for data in progress] == ["capital France, population Paris"]
    assert scripted.requests[0].tools == ["capital", "population"]
    capital, population = scripted.requests[1].said("tool")
    assert "Paris" in capital
    assert "2100000" in population


async def test_what_it_spends_is_in_its_record(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(call("capital", country="France"), say("Paris.", tokens=(1_000, 500)))
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        handle = await dispatched(hermes, "Where?")
        await handle
        usage = (await handle.task()).usage
        [(spender, counted)] = (await hermes.store.metrics()).spent.items()
    assert usage is not None
    assert counted == usage
    assert spender.model.endswith(":gpt-4o-mini")
    assert (usage.requests, usage.tool_calls, usage.input_tokens, usage.output_tokens) == (2, 1, 1_100, 520)
    assert usage.cost_usd == pytest.approx(1_100 * 0.15e-6 + 520 * 0.6e-6)


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


async def test_a_limit_above_it_on_the_cost_wants_a_price_too(scripted: ScriptedModel) -> None:
    @subagent(limits={"cost_usd": 1.0})
    async def root(ctx: TaskContext) -> None:
        await (await ctx.dispatch("research", "Where?"))

    research = AgentSpec(model="openai:nobody-knows", base_url=scripted.url)
    async with LocalHermes(root, config=AgentsConfig(agents={"research": research})) as hermes:
        with pytest.raises(TaskFailed, match=r"no known price, so limits\.cost_usd cannot be kept"):
            await (await hermes.session("chat").dispatch(root))
    assert not scripted.requests


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
    assert (task.attempt, task.failures) == (1, 0)
    assert len(scripted.requests) == 3  # the tool was not called again


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


async def test_waits_of_a_busy_model_are_no_faults(start: Start, scripted: ScriptedModel) -> None:
    busy = status(429, retry_after="0")
    scripted.then(busy, busy, status(503), busy, status(503), say("Paris."))
    async with start() as hermes:
        assert await (await dispatched(hermes, "Where?")) == "Paris."


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
        (400, r"model 'gpt-4o-mini' \(HTTP 400\) refuses the request: scripted 400"),
        (401, r"model 'gpt-4o-mini' \(HTTP 401\) refuses the key"),
        (404, r"model 'gpt-4o-mini' \(HTTP 404\) is not there: check `model` and `base_url`"),
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


async def test_what_is_said_to_the_task_reaches_the_model_at_its_next_step(
    start: Start, scripted: ScriptedModel
) -> None:
    async with start(tools=(f"{TOOLS}:gate",)) as hermes:
        from tests.support.lookups import opened

        opened.clear()
        scripted.then(call("gate"), say("Done."))
        handle = await dispatched(hermes, "Go.")
        await wait_until_async(lambda: len(scripted.requests) == 1)
        await handle.send("Only after 2020.", data={"year": 2020})
        opened.set()
        assert await handle == "Done."
    said = scripted.requests[1].said("user")[-1]
    assert "Only after 2020." in said
    assert '{"year": 2020}' in said


async def test_what_is_said_during_the_last_answer_makes_another(
    start: Start, scripted: ScriptedModel
) -> None:
    async with start() as hermes:
        scripted.then(say("Fi", "nal?", pause=0.5), say("Final."))
        handle = await dispatched(hermes, "Go.")
        await wait_until_async(lambda: len(scripted.requests) == 1)
        await handle.send("One more thing.")
        assert await handle == "Final."
    assert scripted.requests[1].said("assistant") == ["Final?"]
    assert "One more thing." in scripted.requests[1].last


async def test_openais_own_api_is_spoken_where_a_name_says_so(
    start: Start, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    scripted.then(call("capital", country="France"), say("Par", "is.", pause=0.3))
    async with start(model="openai-responses:gpt-4o-mini", tools=(f"{TOOLS}:capital",)) as hermes:
        handle = await dispatched(hermes, "Where?")
        assert await handle == "Paris."
        assert [data.value for data in await told(handle, "task.partial")] == ["Par", "Paris."]
        usage = (await handle.task()).usage
    assert usage is not None
    assert (usage.requests, usage.tool_calls, usage.input_tokens, usage.output_tokens) == (2, 1, 200, 40)
    assert usage.cost_usd == pytest.approx(200 * 0.15e-6 + 40 * 0.6e-6)
    assert {request.path for request in scripted.requests} == {"/v1/responses"}
    assert "Paris" in scripted.requests[1].said("tool")[0]


async def test_of_a_long_text_the_end_is_shown_and_the_beginning_kept(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(broken("a" * WINDOW, "b" * KEPT, "c"))
    async with start() as hermes:
        handle = await dispatched(hermes, "Go.")
        with pytest.raises(TaskFailed):
            await handle
        kept = (await handle.task()).partials["output"]
    assert kept == f"{'a' * WINDOW}{'b' * (KEPT - WINDOW)}…"


async def test_of_a_long_text_that_grows_the_end_is_shown(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(hang("a" * WINDOW, "bcd"))
    async with start() as hermes:
        handle = await dispatched(hermes, "Go.")

        async def shown() -> bool:
            return (await handle.task()).partials.get("output") == f"…{'a' * (WINDOW - 3)}bcd"

        await wait_until_async(shown)
        await handle.cancel()


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


async def test_arguments_without_an_end_are_ended(
    start: Start, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.adapters.model.show.LONGEST", 1_000)
    scripted.then(call("capital", country="a" * 1_001))
    async with start(tools=(f"{TOOLS}:capital",)) as hermes:
        with pytest.raises(TaskFailed, match="more than 1,000 characters, and goes on"):
            await (await dispatched(hermes, "Go."))


async def test_what_is_spent_names_the_provider(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("."))
    async with start(model="ollama:llama3") as hermes:
        await (await dispatched(hermes, "Go."))
        [spender] = (await hermes.store.metrics()).spent
    assert spender.model == "ollama:llama3"


async def test_a_subagents_model_wins(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("."))
    async with start({"model": "other"}) as hermes:
        await (await dispatched(hermes, "Go."))
    assert scripted.requests[0].model == "other"


async def test_an_agent_without_a_model_of_its_own_is_run_as_its_parent_says(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(say("."))
    async with start({"model": "other"}, model=None) as hermes:
        await (await dispatched(hermes, "Go."))
        with pytest.raises(ConfigError, match="agent 'research': it has no model of its own"):
            await hermes.session("chat").dispatch("research", "Go.")
    assert [request.model for request in scripted.requests] == ["other"]


async def test_another_model_takes_over_in_the_same_task(scripted: ScriptedModel, tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return say("I can.") if request.model == "gpt-4o" else status(500)

    with ScriptedModel(script=answer) as model:
        file = tmp_path / "agents.yaml"
        file.write_text(
            "agents:\n"
            "  boss:\n"
            "    type: conversational\n"
            "    subagents:\n"
            "      - {id: research, model: tiny, fallback: 'openai:gpt-4o',\n"
            "         retry_limit: 1, retry: {initial: 0.01}}\n"
            f"  research_agent: {{base_url: '{model.url}'}}\n"
        )
        async with LocalHermes(config=load(file, {})) as hermes:
            handle = await dispatched(hermes, "Go.")
            assert await handle == "I can."
            task = await handle.task()
            retried = await told(handle, "task.retrying")
    assert (task.agent, task.attempt) == ("research_agent.openai-gpt-4o", 3)
    assert [data.agent for data in retried] == [None, "research_agent.openai-gpt-4o"]
    assert {request.model for request in model.requests} == {"tiny", "gpt-4o"}


async def test_connections_are_shared_and_closed_at_the_end(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(*[say("It is so.")] * 6)
    async with start() as hermes:
        for _ in range(6):
            await (await dispatched(hermes, "Go."))
        assert len(connected(scripted.port)) == 1
    assert connected(scripted.port) == []
    gc.collect()  # a ResourceWarning would be an error


def connected(port: int) -> list[Any]:
    return [
        each
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    ]


async def test_a_model_of_a_test_may_stand_in() -> None:
    from pydantic_ai.models.function import AgentInfo, FunctionModel
    from pydantic_ai.models.test import TestModel

    async def stream(_: Any, __: AgentInfo) -> AsyncIterator[str]:
        yield "by "
        yield "function"

    config = AgentsConfig(agents={"a": AgentSpec(model="none"), "b": AgentSpec(model="none")})
    models = {"a": TestModel(custom_output_text="by test"), "b": FunctionModel(stream_function=stream)}
    async with LocalHermes(config=config, models=models) as hermes:
        assert await (await hermes.session("s").dispatch("a", "Go.")) == "by test"
        assert await (await hermes.session("s").dispatch("b", "Go.")) == "by function"


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        (AgentSpec(name="a", description="Finds."), "Finds."),
        (AgentSpec(name="a", instructions="Find\nsources.\n\nBe brief."), "Find\nsources."),
        (AgentSpec(name="a", tools=("one", "two")), "A task agent with the tools one, two."),
    ],
)
def test_what_a_parents_model_reads(spec: AgentSpec, read: str) -> None:
    assert description(spec) == read
    assert DeclaredAgents(lambda names: {})(spec).description == read


def test_dispatching_imports_no_pydantic_ai() -> None:
    program = (
        "import asyncio, sys\n"
        "from hermes_async.adapters.model.declared import DeclaredAgents\n"
        "from hermes_async.core.registry import Registry\n"
        "from hermes_async.domain.agent import AgentsConfig, AgentSpec\n"
        "config = AgentsConfig(agents={'a': AgentSpec(model='gpt-4o-mini')})\n"
        "known = Registry(config, (), DeclaredAgents(lambda names: {}, has_workers=True))\n"
        "agent = known.resolve('a', None)\n"
        "agent.needs.admit(agent.spec)\n"
        "print(agent.signature.bind_text('chips'), 'pydantic_ai' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"OPENAI_API_KEY": "k"},
        check=True,
    )
    assert done.stdout == "{'input': 'chips'} False\n"


async def test_a_model_asks_its_parent_and_goes_on_with_the_answer(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(call("ask_parent", question="Which year?"), say("Since 2020."))
    async with start(tools=("ask_parent",)) as hermes:
        handle = await dispatched(hermes, "Go.")
        await wait_until_async(lambda: _asked(handle))
        await handle.answer(2020)
        assert await handle == "Since 2020."
    assert "2020" in scripted.requests[1].said("tool")[0]


async def _asked(handle: TaskHandle[Any]) -> bool:
    question = (await handle.task()).question
    return question is not None and question.question == "Which year?"


@pytest.mark.parametrize("has_workers", [True, False])
def test_a_dispatch_is_refused_only_where_the_workers_have_no_more_than_we(has_workers: bool) -> None:
    spec = AgentSpec(name="a", model="gpt-4o-mini")
    agent = DeclaredAgents(lambda names: {}, has_workers=has_workers)(spec)
    assert agent.needs is not None
    refused = pytest.raises(ConfigError, match="agent 'a': model 'gpt-4o-mini' needs a key")
    with refused if has_workers else nullcontext():
        agent.needs.admit(agent.spec)
    with pytest.raises(ConfigError, match="needs a key"):
        agent.needs.check(agent.spec)


@pytest.mark.parametrize(
    ("queue", "refused"),
    [(None, True), ("redis://localhost:6379/0", True), ("redis://redis.default:6379/0", False)],
)
def test_workers_of_a_broker_on_this_machine_have_its_environment(queue: str | None, refused: bool) -> None:
    agents = AgentsConfig(agents={"a": AgentSpec(model="gpt-4o-mini")}, task_queue=queue)
    known = registry(Settings.read(agents=agents, environ={}))
    agent = known.agent("a")
    assert agent.needs is not None
    with pytest.raises(ConfigError, match="needs a key") if refused else nullcontext():
        agent.needs.admit(agent.spec)
