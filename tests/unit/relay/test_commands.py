"""Commands over the socket: the same as in process, for those whose token allows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
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
from hermes_async.relay.sockets import READ_BYTES
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


def command(number: int | str, name: str, text: str) -> str:
    """A packet that the socket of a test takes as it stands."""
    return f'42{number}["{name}",{{"session":"s","text":{text}}}]'


UNREADABLE = "a command is a JSON list of its name and an object; this one cannot be read"
PACKETS = {
    command(1, "message", f'"{"x" * 64_000}"'): "is 64,039 bytes, more than 64,000: pass a reference instead",
    command(1, "message", f'"{"é" * 64_000}"'): "is 128,039 bytes, more than 64,000",
    command(1, "mesage", '"x"'): "there is no command 'mesage'; did you mean 'message'?",
    command(1, "connect", '"x"'): "there is no command 'connect'",
    command(1, "*", '"x"'): "there is no command '*'",
    command(1, "\\ud800", '"x"'): r"there is no command '\ud800'",
    command(1, "x" * 50_000, '"x"'): "there is no command 'xxx",
    command(1, "message", "[" * 5_000): UNREADABLE,
    command(1, "message", "9" * 5_000): UNREADABLE,
    command(1, "message", ""): UNREADABLE,
    command(1, "message", "NaN"): "text: Input should be a valid string",
    '421["message",{"session":"s","text":"x","data":{"a":[NaN]}}]': "NaN and Infinity have no form there",
    '421["message",{"session":"s","text":"x","data":"\\ud800"}]': "it has half a character",
    command(1, "message", '"x","data":' + "[" * 150 + "]" * 150): "nested deeper than 100 levels",
    command(1, "message", '"x","data":' + "[" * 800 + "]" * 800): "data.list.0.list.0",
    '421["message"]': "a command takes one object: session, text, data, each by its name",
    '421["ack",[1]]': "a command takes one object: session, seqs, each by its name",
    "421[]": UNREADABLE,
    "421[5]": UNREADABLE,
    "421{}": UNREADABLE,
    "421": UNREADABLE,
}


@only_memory
@pytest.mark.parametrize("packet", PACKETS, ids=lambda packet: packet[:40])
async def test_what_a_foreign_client_gets_wrong_is_answered(
    hermes: Hermes, station: Station, packet: str
) -> None:
    async with aiohttp.ClientSession() as http, engine(http, station) as ws:
        await ws.send_str(packet)
        answer = (await ws.receive_str(timeout=5)).removeprefix("431")
        (said,) = json.loads(answer)
        assert (said["ok"], said["error"]["code"]) == (False, "invalid")
        assert PACKETS[packet] in said["error"]["message"]
        assert len(said["error"]["message"]) < 250
        assert "\n" not in said["error"]["message"]
        await ws.send_str(command(2, "message", '"and it goes on"'))
        assert await ws.receive_str(timeout=5) == '432[{"ok":true,"seq":1}]'


@only_memory
async def test_who_asks_for_no_answer_gets_none(hermes: Hermes, station: Station) -> None:
    async with aiohttp.ClientSession() as http, engine(http, station) as ws:
        for packet in (
            command("", "mesage", '"x"'),
            command("", "message", "["),
            command("", "message", f'"{"x" * 64_000}"'),
            command("", "message", '"obeyed"'),
            command(7, "message", '"and answered"'),
        ):
            await ws.send_str(packet)
        assert await ws.receive_str(timeout=5) == '437[{"ok":true,"seq":2}]'


@only_memory
async def test_more_than_is_read_at_all_closes_the_socket(hermes: Hermes, station: Station) -> None:
    async with aiohttp.ClientSession() as http, engine(http, station) as ws:
        await ws.send_str(command(1, "message", f'"{"x" * READ_BYTES}"'))
        closed = await ws.receive(timeout=5)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1009)
    assert await hermes.store.last_seq("s") == 0


@asynccontextmanager
async def engine(
    http: aiohttp.ClientSession, station: Station
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A client that writes packets by hand, connected."""
    async with http.ws_connect(f"{station.url}/socket.io/?EIO=4&transport=websocket") as ws:
        await ws.receive_str()
        await ws.send_str("40" + json.dumps({"token": token("s")}))
        await ws.receive_str()
        yield ws


@only_memory
async def test_the_client_does_not_send_what_the_relay_would_not_take(
    hermes: Hermes, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RelayClient(station.url, token("s")) as client:
        assert await client.message("s", "中" * 20_000) == 1  # three bytes each, not six
        with pytest.raises(InvalidInput, match=r"is 64,0\d\d bytes, more than 64,000: pass a reference"):
            await client.message("s", "x", "y" * 63_955)  # the object would fit, its packet does not
        await station.stop()
        for said, told in {
            "x" * 64_000: "the command message is 64,025 bytes of JSON, more than 64,000: pass a reference",
            "\ud800": "cannot be written as JSON: it has half a character",
        }.items():
            with pytest.raises(InvalidInput, match=told):
                await client._commands.command("message", session="s", text=said)  # type: ignore[union-attr]
        with pytest.raises(InvalidInput, match="NaN and Infinity have no form there"):
            await client._commands.command("message", data=float("nan"))  # type: ignore[union-attr]


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
