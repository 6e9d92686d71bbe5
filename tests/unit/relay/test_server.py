"""What a relay says over real sockets, over each store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import aiohttp
import pytest
import socketio

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ConfigError, RelayUnavailable, StoreUnavailable
from hermes_async.relay.auth import mint
from hermes_async.relay.line import Limits
from hermes_async.relay.server import create_app, serve
from hermes_async.relay.tail import BATCH_BYTES
from tests.support.servers import wait_until_async
from tests.unit.relay.conftest import (
    SECRET,
    MakeStore,
    Station,
    background_tasks,
    finish,
    hermes_over,
    new_task,
    progress,
    say,
    token,
)

pytestmark = pytest.mark.anyio
REFUSED = {"code": "not_found", "message": "there is no such session or task, or it is not yours"}


@pytest.mark.parametrize(
    "bad", [None, "", "garbage", token("s", ttl=-5), mint("y" * 32, sub="x", sessions=["s"], ttl=60)]
)
async def test_nobody_comes_in_without_a_valid_token(relay: Station, bad: str | None) -> None:
    refused: list[Any] = []
    sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    sio.on("connect_error", refused.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await sio.connect(relay.url, auth={"token": bad}, transports=["websocket"])
    assert refused[0]["data"]["code"] == "unauthorized"
    assert refused[0]["data"]["message"] == refused[0]["message"]


async def test_a_session_is_told_from_the_beginning_and_on(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "s", 100)
    async with relay.socket(token("s")) as socket:
        answer = await socket.ask("subscribe", {"session": "s", "after": 0})
        assert answer == {"ok": True, "session": "s", "task": None, "seq": 100}
        await say(hermes, "s", 20, start=101)
        await wait_until_async(lambda: len(socket.events) == 120)
    assert [event["seq"] for event in socket.events] == list(range(1, 121))
    assert [event["data"]["text"] for event in socket.events] == [str(n) for n in range(1, 121)]
    assert max(len(batch["events"]) for batch in socket.batches) == 64
    first = socket.batches[0]
    assert (first["session"], first["task"], first["gap"], first["snapshot"]) == ("s", None, None, None)
    assert not first["end"]
    logged = await hermes.store.events("s", 0, 1)
    assert first["events"][0] == json.loads(logged.events[0].model_dump_json())


async def test_what_is_foreign_looks_as_if_it_did_not_exist(hermes: Hermes, relay: Station) -> None:
    foreign = await new_task(hermes, "theirs")
    absent = (await new_task(hermes, "t")).id[:-4] + "zzzz"
    wishes = [
        {"session": "theirs"},
        {"session": "nobody's"},
        {"task": foreign.id},
        {"task": absent},
        {"task": "x"},
    ]
    async with relay.socket(token("mine")) as socket:
        answers = [await socket.ask("subscribe", wish) for wish in wishes]
    assert {json.dumps(answer) for answer in answers} == {json.dumps({"ok": False, "error": REFUSED})}
    assert socket.batches == []


async def test_a_session_without_events_is_waited_for(hermes: Hermes, relay: Station) -> None:
    async with relay.socket(token("new")) as socket:
        assert (await socket.ask("subscribe", {"session": "new"}))["seq"] == 0
        await say(hermes, "new", 1)
        await wait_until_async(lambda: socket.events)


async def test_a_task_is_told_alone_until_its_end(hermes: Hermes, relay: Station) -> None:
    task, other = await new_task(hermes, "s"), await new_task(hermes, "s")
    async with relay.socket(token("s")) as socket:
        answer = await socket.ask("subscribe", {"task": task.id})
        assert (answer["session"], answer["task"]) == ("s", task.id)
        await progress(hermes, other, range(1, 100))
        await progress(hermes, task, range(1, 3))
        last = await finish(hermes, task)
        await say(hermes, "s", 3)
        await wait_until_async(lambda: socket.batches and socket.batches[-1]["end"])
        assert [event["task_id"] for event in socket.events] == [task.id] * 5
        assert socket.events[-1]["seq"] == last
        assert (await socket.ask("subscribe", {"task": task.id, "after": last}))["ok"]
        await wait_until_async(lambda: sum(batch["end"] for batch in socket.batches) == 2)
        assert socket.batches[-1]["events"] == []


@pytest.mark.parametrize("beyond", [0, 3, 1_000_000])
async def test_a_task_that_is_over_ends_at_once(hermes: Hermes, relay: Station, beyond: int) -> None:
    task = await new_task(hermes, "s")
    last = await finish(hermes, task)
    await say(hermes, "s", 5)
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"task": task.id, "after": last + beyond})
        await wait_until_async(lambda: socket.batches)
    assert [(batch["events"], batch["end"]) for batch in socket.batches] == [([], True)]


async def test_a_place_that_does_not_exist_yet_does_not_hide_the_end(hermes: Hermes, relay: Station) -> None:
    task = await new_task(hermes, "s")
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"task": task.id, "after": 1000})
        await asyncio.sleep(0.05)
        await finish(hermes, task)
        await wait_until_async(lambda: socket.batches)
    assert [(batch["events"], batch["end"]) for batch in socket.batches] == [([], True)]


async def test_subscribing_twice_changes_nothing_and_unsubscribing_ends_it(
    hermes: Hermes, relay: Station
) -> None:
    await say(hermes, "s", 5)
    async with relay.socket(token("s")) as socket:
        first = await socket.ask("subscribe", {"session": "s"})
        assert await socket.ask("subscribe", {"session": "s"}) == first
        await wait_until_async(lambda: len(socket.events) == 5)
        assert await socket.ask("unsubscribe", {"session": "s"}) == {"ok": True}
        assert await socket.ask("unsubscribe", {"session": "s"}) == {"ok": True}
        await say(hermes, "s", 5)
        await asyncio.sleep(0.1)
        assert len(socket.events) == 5
        await socket.ask("subscribe", {"session": "s", "after": 5})
        await wait_until_async(lambda: len(socket.events) == 10)
    assert [event["seq"] for event in socket.events] == list(range(1, 11))


async def test_an_operator_hears_every_session(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "a", 1)
    await say(hermes, "b", 1)
    async with relay.socket(mint(SECRET, sub="ops", sessions="*", ttl=60)) as socket:
        for session_id in ("a", "b"):
            assert (await socket.ask("subscribe", {"session": session_id}))["ok"]
        await wait_until_async(lambda: len(socket.events) == 2)
    assert {event["session_id"] for event in socket.events} == {"a", "b"}


async def test_one_batch_is_under_way_however_many_subscriptions(hermes: Hermes, relay: Station) -> None:
    for name in "abc":
        await say(hermes, name, 70)
    async with relay.socket(token("a", "b", "c")) as socket:
        socket.hold.clear()
        for name in "abc":
            await socket.ask("subscribe", {"session": name})
            await socket.ask("unsubscribe", {"session": name})
            await socket.ask("subscribe", {"session": name})
        await asyncio.sleep(0.1)
        assert len(socket.batches) == 1
        socket.hold.set()
        await wait_until_async(lambda: len({event["id"] for event in socket.events}) == 210)


async def test_a_batch_is_bounded_in_bytes(hermes: Hermes, relay: Station) -> None:
    session = hermes.session("s")
    for _ in range(10):
        await session.send_message("x" * 60_000)
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"session": "s"})
        await wait_until_async(lambda: len(socket.events) == 10)
    assert max(len(json.dumps(batch["events"])) for batch in socket.batches) <= BATCH_BYTES
    assert len(socket.batches) == 3


async def test_a_trimmed_place_gets_a_gap_and_a_snapshot(make_store: MakeStore) -> None:
    async with hermes_over(make_store(10)) as hermes, Station(hermes) as relay:
        task = await new_task(hermes, "s")
        await finish(hermes, task)
        await say(hermes, "s", 400)
        kept = await hermes.store.events("s", 0, 500)
        async with relay.socket(token("s")) as socket:
            await socket.ask("subscribe", {"session": "s", "after": 1})
            await wait_until_async(lambda: socket.events and socket.events[-1]["seq"] == 403)
            first = socket.batches[0]
            assert first["events"] == []
            assert first["gap"] == [2, kept.events[0].seq - 1]
            assert [shown["id"] for shown in first["snapshot"]["tasks"]] == [task.id]
            assert first["snapshot"]["tasks"][0]["status"] == "cancelled"
            assert (first["snapshot"]["seq"], first["snapshot"]["more"]) == (403, False)
            assert [event["seq"] for event in socket.events] == [event.seq for event in kept.events]
            socket.batches.clear()
            await socket.ask("subscribe", {"task": task.id, "after": 1})
            await wait_until_async(lambda: socket.batches and socket.batches[-1]["end"])
            assert socket.batches[0]["snapshot"]["tasks"][0]["id"] == task.id
            assert socket.events == []


async def test_a_socket_is_closed_when_its_token_expires(relay: Station) -> None:
    async with relay.socket(token("s", ttl=0.2)) as socket:
        assert (await socket.ask("subscribe", {"session": "s"}))["ok"]
        await asyncio.wait_for(socket.gone.wait(), 5)
    assert socket.news == ["auth.expired"]
    assert not [name for name in background_tasks() if "feed" in name]


async def test_the_33rd_subscription_is_refused(relay: Station) -> None:
    async with relay.socket(token(*(f"s{n}" for n in range(33)))) as socket:
        answers = [await socket.ask("subscribe", {"session": f"s{n}"}) for n in range(33)]
        assert [answer["ok"] for answer in answers] == [True] * 32 + [False]
        assert answers[-1]["error"]["code"] == "too_many"
        assert (await socket.ask("subscribe", {"session": "s0"}))["ok"]
        await socket.ask("unsubscribe", {"session": "s0"})
        assert (await socket.ask("subscribe", {"session": "s32"}))["ok"]


async def test_a_flood_of_commands_waits(hermes: Hermes) -> None:
    async with (
        Station(hermes, Limits(commands=50)) as relay,
        relay.socket(token("s")) as loud,
        relay.socket(token("s")) as calm,
    ):
        began = time.monotonic()
        flood = asyncio.gather(*(loud.ask("unsubscribe", {"session": "s"}) for _ in range(100)))
        assert (await calm.ask("subscribe", {"session": "s"}))["ok"]
        assert time.monotonic() - began < 0.5
        assert all(answer["ok"] for answer in await flood)
        assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    "said",
    [
        (),
        (None,),
        (1,),
        ("s",),
        ([],),
        ({},),
        ({"session": 1},),
        ({"session": ""},),
        ({"session": "x" * 201},),
        ({"session": "a\u0000b"},),
        ({"session": "\ud800"},),
        ({"session": "s", "task": "t"},),
        ({"session": "s", "after": -1},),
        ({"session": "s", "after": 1.5},),
        ({"session": "s", "after": "0"},),
        ({"session": "s", "after": True},),
        ({"session": "s", "after": 10**30},),
        ({"session": "s", "surprise": {}},),
        ({"task": "t²-x"},),
        ({"task": ["t"]},),
    ],
)
@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_garbage_is_answered_with_a_sentence(relay: Station, said: tuple[Any, ...]) -> None:
    async with relay.socket(token("s")) as socket:
        for command in ("subscribe", "unsubscribe"):
            answer = await socket.ask(command, *said)
            assert (answer["ok"], answer["error"]["code"]) == (False, "invalid")
            assert answer["error"]["message"]
        assert (await socket.ask("subscribe", {"session": "s"}, "more"))["ok"]


GARBAGE = [
    "",
    "4[" + "[" * 5000,
    "0" + "[" * 5000,
    "9",
    "x",
    "4",
    "42",
    "42{}",
    "42[]",
    "42[[]]",
    '42["connect",{},{"token":"x"}]',
    '42["disconnect"]',
    '42["unknown",1]',
    "430[]",
    "43[]",
    "431{}",
    "4599999-",
    '451-["subscribe",{"_placeholder":true,"num":0}]',
    "40",
    '40/other,{"token":"x"}',
    "44",
    "42" + "[" * 5000,
    b"\x00\xff",
]


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_socket_survives_garbage_packets_or_is_closed(hermes: Hermes, relay: Station) -> None:
    async with relay.socket(token("s")) as witness, aiohttp.ClientSession() as http:
        await witness.ask("subscribe", {"session": "s"})
        for garbage in [*GARBAGE, "42" + json.dumps(["subscribe", "x" * 100_000])]:
            async with http.ws_connect(f"{relay.url}/socket.io/?EIO=4&transport=websocket") as ws:
                await ws.receive_str()
                await ws.send_str("40" + json.dumps({"token": token("s")}))
                await ws.receive_str()
                await (ws.send_bytes(garbage) if isinstance(garbage, bytes) else ws.send_str(garbage))
                await ws.send_str('420["subscribe",{"session":"s"}]')
                answer = await asyncio.wait_for(ws.receive(), 5)
                closed = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
                assert answer.type in (aiohttp.WSMsgType.TEXT, *closed), garbage
        await say(hermes, "s", 1)
        await wait_until_async(lambda: witness.events)
        await wait_until_async(lambda: len([n for n in background_tasks() if "Topic" in n]) == 1)


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_who_talks_without_listening_fills_no_memory(hermes: Hermes, relay: Station) -> None:
    """Commands, connects and forged acknowledgements all make the relay send; it must stop reading."""
    for number in range(400):
        await hermes.session("s").send_message(str(number) + "x" * 50_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=1)
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(f"{relay.url}/socket.io/?EIO=4&transport=websocket")
        await ws.receive_str()
        await ws.send_str("40" + json.dumps({"token": token("s")}))
        await ws.receive_str()
        transport = ws._conn.transport
        transport.pause_reading()
        await ws.send_str('420["subscribe",{"session":"s"}]')
        for number in range(1, 300):
            await asyncio.sleep(0.001)
            await ws.send_str(f"43{number}[]")
            await ws.send_str("40{}")
        queued = sum(socket.queue.qsize() for socket in engine_sockets())
        assert queued < 10
        transport.abort()
    writer.close()
    await writer.wait_closed()
    reader.feed_eof()


def engine_sockets() -> list[Any]:
    import gc

    from engineio.async_socket import AsyncSocket

    return [thing for thing in gc.get_objects() if isinstance(thing, AsyncSocket)]


async def test_health_says_whether_it_hears(hermes: Hermes, relay: Station) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{relay.url}/healthz") as response:
            assert response.status == 200
            answer = await response.json()
            assert answer == {"status": "ok", "redis": await hermes.store.ping(), "hears": True}
        for path in ("/docs", "/openapi.json", "/"):
            async with http.get(relay.url + path) as response:
                assert response.status == 404


async def test_health_fails_without_the_store(
    hermes: Hermes, relay: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down() -> str:
        raise StoreUnavailable("down")

    monkeypatch.setattr(hermes.store, "ping", down)
    async with aiohttp.ClientSession() as http, http.get(f"{relay.url}/healthz") as response:
        assert response.status == 503
        assert await response.json() == {"status": "unavailable", "redis": None, "hears": True}


async def test_a_store_that_is_away_is_waited_for(
    hermes: Hermes, relay: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: object) -> Any:
        raise StoreUnavailable("down")

    await say(hermes, "s", 3)
    async with relay.socket(token("s")) as socket:
        with monkeypatch.context() as broken:
            broken.setattr(hermes.store, "events", down)
            assert (await socket.ask("subscribe", {"session": "s"}))["ok"]
            broken.setattr(hermes.store, "last_seq", down)
            answer = await socket.ask("subscribe", {"session": "s"})
            assert answer["error"]["code"] == "unavailable"
            await asyncio.sleep(0.1)
        await wait_until_async(lambda: len(socket.events) == 3)


async def test_a_stop_says_goodbye_and_leaves_nothing(hermes: Hermes) -> None:
    relay = Station(hermes)
    await relay.start()
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"session": "s"})
        began = time.monotonic()
        await relay.stop()
        assert time.monotonic() - began < 1.5
        await asyncio.wait_for(socket.gone.wait(), 5)
    assert socket.news == ["relay.draining"]
    assert not background_tasks()


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_signal_stops_it(hermes: Hermes) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ready = asyncio.Event()
    running = asyncio.create_task(serve(hermes, "127.0.0.1", 0, SECRET, on_ready=lambda port: ready.set()))
    await ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 5)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_stop_does_not_wait_for_who_does_not_read(hermes: Hermes) -> None:
    for _ in range(100):
        await hermes.session("s").send_message("x" * 60_000)
    relay = Station(hermes)
    await relay.start()
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(f"{relay.url}/socket.io/?EIO=4&transport=websocket")
        await ws.receive_str()
        await ws.send_str("40" + json.dumps({"token": token("s")}))
        await ws.receive_str()
        transport = ws._conn.transport
        transport.pause_reading()
        await ws.send_str('420["subscribe",{"session":"s"}]')
        for number in range(1, 40):
            await ws.send_str(f"43{number}[]")
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await relay.stop()
        assert time.monotonic() - began < 5
        assert not background_tasks()
        transport.abort()


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_port_in_use_and_a_short_secret_are_told_at_once(hermes: Hermes, relay: Station) -> None:
    with pytest.raises(RelayUnavailable, match=str(relay.port)):
        await serve(hermes, "127.0.0.1", relay.port, SECRET)
    with pytest.raises(ConfigError, match="32 bytes"):
        create_app(hermes, secret="short")
