"""Runs of declared agents over memory, with a model behind a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_async import TaskContext, TaskFailed, subagent
from hermes_async.adapters.model.run import AT_ONCE
from hermes_async.adapters.model.show import KEPT, WINDOW
from hermes_async.core.handle import TaskHandle
from hermes_async.domain.agent import AgentsConfig, AgentSpec
from hermes_async.testing import LocalHermes
from tests.support.model import ScriptedModel, broken, call, calls, hang, say
from tests.support.servers import wait_until_async
from tests.support.thinking import TOOLS, Start, dispatched, told

pytestmark = pytest.mark.anyio


async def test_it_answers_and_its_text_is_shown_as_it_comes(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("It ", "is ", "so.", pause=0.3))
    async with start(instructions="Be brief.") as hermes:
        handle = await dispatched(hermes, "Is it?")
        assert await handle == "It is so."
        assert [data.value for data in await told(handle, "task.partial")] == ["It ", "It is ", "It is so."]
    request = scripted.requests[0]
    assert (request.said("system"), request.said("user")) == (["Be brief."], ["Is it?"])


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


async def test_a_model_that_calls_a_crowd_of_tools_gets_them_in_turn(
    start: Start, scripted: ScriptedModel
) -> None:
    scripted.then(calls(*[("crowd", {"n": n}) for n in range(200)]), say("So."))
    async with start(tools=(f"{TOOLS}:crowd",)) as hermes:
        assert await (await dispatched(hermes, "How many?")) == "So."
    said = [int(text.split("\n")[1]) for text in scripted.requests[1].said("tool")]
    assert len(said) == 200
    assert 1 < max(said) <= AT_ONCE


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


async def test_a_limit_above_it_on_the_cost_wants_a_price_too(scripted: ScriptedModel) -> None:
    @subagent(limits={"cost_usd": 1.0})
    async def root(ctx: TaskContext) -> None:
        await (await ctx.dispatch("research", "Where?"))

    research = AgentSpec(model="openai:nobody-knows", base_url=scripted.url)
    async with LocalHermes(root, config=AgentsConfig(agents={"research": research})) as hermes:
        with pytest.raises(TaskFailed, match=r"no known price, so limits\.cost_usd cannot be kept"):
            await (await hermes.session("chat").dispatch(root))
    assert not scripted.requests


async def test_a_limit_above_it_on_tokens_wants_a_server_that_counts(scripted: ScriptedModel) -> None:
    @subagent(limits={"total_tokens": 1_000})
    async def root(ctx: TaskContext) -> None:
        await (await ctx.dispatch("research", "Where?"))

    scripted.then(say("Paris.").but(tokens=None))
    research = AgentSpec(model="gpt-4o-mini", base_url=scripted.url)
    async with LocalHermes(root, config=AgentsConfig(agents={"research": research})) as hermes:
        with pytest.raises(TaskFailed, match="tells no usage, so no limit on it can be kept"):
            await (await hermes.session("chat").dispatch(root))


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


async def test_what_is_spent_names_the_provider(start: Start, scripted: ScriptedModel) -> None:
    scripted.then(say("."))
    async with start(model="ollama:llama3") as hermes:
        await (await dispatched(hermes, "Go."))
        [spender] = (await hermes.store.metrics()).spent
    assert spender.model == "ollama:llama3"
