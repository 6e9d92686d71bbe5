"""Commands over the socket: the same as in process, for those whose token allows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from hermes_async import TaskContext, subagent
from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    NotTaken,
    RelayUnavailable,
    Unauthorized,
    UnknownTask,
)
from hermes_async.domain.question import Question
from hermes_async.domain.task import TaskStatus
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient
from hermes_async.relay.line import Limits
from tests.unit.relay.conftest import SECRET, MakeStore, Station, finish, new_task, only_memory, token

pytestmark = pytest.mark.anyio


@subagent
async def brew(ctx: TaskContext, drink: str) -> str:
    """Make a drink."""
    return drink


@pytest.fixture
async def hermes(make_store: MakeStore) -> AsyncIterator[Hermes]:
    made = Hermes(Registry(AgentsConfig(), [brew]), make_store(10_000), MemoryQueue())
    yield made
    await made.close()


@pytest.fixture
async def station(hermes: Hermes) -> AsyncIterator[Station]:
    async with Station(hermes, Limits(commands=10_000)) as station:
        yield station


async def test_a_client_does_what_a_parent_does(hermes: Hermes, station: Station) -> None:
    await hermes.session("s").send_message("before")
    async with RelayClient(station.url, token("s")) as client:
        made = await client.dispatch("s", "brew", {"drink": "tea"}, priority=7, idempotency_key="k")
        again = await client.dispatch("s", "brew", {"drink": "tea"}, priority=7, idempotency_key="k")
        assert (made.task, made.seq) == (again.task, 1)
        record = await (await hermes.handle(made.task)).task()
        assert (record.session_id, record.birth.options.priority) == ("s", 7)
        with pytest.raises(IdempotencyConflict):
            await client.dispatch("s", "brew", "milk", idempotency_key="k")
        assert await client.send(made.task, "stir", {"times": 3}) == 3
        assert await client.message("s", "hello", None) == 4
        assert await client.cancel(made.task) is True
        assert await client.cancel(made.task, force=True, cascade=False) is False
        with pytest.raises(NotTaken):
            await client.send(made.task, "too late")
        lying = await client.inbox("s")
        assert [event.type for event in lying] == ["session.message", "session.message", "task.cancelled"]
        assert await client.inbox("s", after=lying[0].seq, limit=1) == lying[1:2]
        assert await client.ack("s", *(event.seq for event in lying[:2]), 999) == 2
        assert await client.inbox("s") == lying[2:]


async def test_a_question_is_answered_once(hermes: Hermes, station: Station) -> None:
    task = await new_task(hermes, "s")
    question = Question(question="Which?", question_id="q1", answer_schema={"type": "integer"})
    assert await hermes.store.ask(task, question) is True
    async with RelayClient(station.url, token("s")) as client:
        with pytest.raises(InvalidInput):
            await client.answer(task.id, "three")
        with pytest.raises(NotTaken):
            await client.answer(task.id, 3, question="another")
        await client.answer(task.id, 3)
        with pytest.raises(NotTaken):
            await client.answer(task.id, 4)
    assert (await (await hermes.handle(task.id)).task()).status is not TaskStatus.INPUT_REQUIRED


COMMANDS = {
    "dispatch": {"session": "theirs", "subagent": "brew", "input": "x"},
    "cancel": {"task": ""},
    "send": {"task": "", "text": "x"},
    "answer": {"task": "", "value": 1},
    "message": {"session": "theirs", "text": "x"},
    "inbox": {"session": "theirs"},
    "ack": {"session": "theirs", "seqs": [1]},
}


async def test_what_is_foreign_or_absent_looks_the_same_and_stays_as_it_is(
    hermes: Hermes, station: Station
) -> None:
    foreign = await new_task(hermes, "theirs")
    last = await hermes.store.last_seq("theirs")
    answers = set()
    async with station.socket(token("mine")) as socket:
        for command, said in COMMANDS.items():
            for task_id in (foreign.id, foreign.id[:-4] + "zzzz", "x"):
                wish = {**said, "task": task_id} if "task" in said else said
                answers.add(json.dumps(await socket.ask(command, wish)))
    told = "there is no such session or task, or it is not yours"
    assert answers == {json.dumps({"ok": False, "error": {"code": "not_found", "message": told}})}
    assert await hermes.store.last_seq("theirs") == last


@only_memory
async def test_a_token_that_allows_only_to_hear_commands_nothing(hermes: Hermes, station: Station) -> None:
    task = await new_task(hermes, "s")
    deaf_mute = mint(SECRET, sub="screen", sessions=["s"], ttl=60, read_only=True)
    async with station.socket(deaf_mute) as socket:
        assert (await socket.ask("subscribe", {"session": "s"}))["ok"]
        assert (await socket.ask("inbox", {"session": "s"}))["ok"]
        for command in sorted(COMMANDS.keys() - {"inbox"}):
            said = {key: value for key, value in COMMANDS[command].items() if key != "session"}
            named = {"task": task.id} if "task" in said else {"session": "s"}
            answer = await socket.ask(command, {**said, **named})
            assert answer["error"]["code"] == "forbidden", command
    async with RelayClient(station.url, deaf_mute) as client:
        with pytest.raises(Forbidden):
            await client.cancel(task.id)
    assert await hermes.store.last_seq("s") == 2


@only_memory
async def test_what_cannot_be_understood_is_answered_with_a_sentence(station: Station) -> None:
    async with station.socket(token("s")) as socket:
        for command, said in COMMANDS.items():
            mine = {**said, "session": "s"} if "session" in said else {**said, "task": "t01-x"}
            unfit: list[object] = [None, [], "x", {}, {**mine, "surprise": 1}]
            unfit += [{**mine, key: {"a": object.__name__}} for key in mine if key not in ("input", "value")]
            for wrong in unfit:
                answer = await socket.ask(command, wrong)
                assert (answer["ok"], answer["error"]["code"]) == (False, "invalid"), (command, wrong)
        for said in (
            {"session": "s", "subagent": "brewer", "input": "x"},
            {"session": "s", "subagent": "brew", "input": {"drnk": "x"}},
            {"session": "s", "subagent": "brew", "input": "x", "parent": "nobody"},
            {"session": "s", "subagent": "brew", "input": "x", "priority": 10},
        ):
            answer = await socket.ask("dispatch", said)
            assert answer["error"]["code"] == "invalid", said


@only_memory
async def test_a_long_inbox_is_told_in_parts(hermes: Hermes, station: Station) -> None:
    for _ in range(10):
        await hermes.session("s").send_message("x" * 50_000)
    async with RelayClient(station.url, token("s")) as client:
        seen = await client.inbox("s")
        assert [event.seq for event in seen] == [1, 2, 3, 4, 5]
        assert [event.seq for event in await client.inbox("s", after=5)] == [6, 7, 8, 9, 10]


@only_memory
async def test_the_connection_for_commands_is_made_again(hermes: Hermes, station: Station) -> None:
    await finish(hermes, task := await new_task(hermes, "s"))
    async with RelayClient(station.url, token("s"), timeout=0.5) as client:
        assert await client.cancel(task.id) is False
        await station.stop()
        with pytest.raises(RelayUnavailable):
            await client.cancel(task.id)
        await station.start()
        assert await client.cancel(task.id) is False
    async with RelayClient(station.url, "nonsense") as client:
        with pytest.raises(Unauthorized):
            await client.cancel(task.id)
    async with RelayClient(station.url, token("theirs")) as client:
        with pytest.raises(UnknownTask):
            await client.cancel(task.id)
