"""How a relay bears strangers, floods, garbage, an absent store, and its own end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from typing import Any

import aiohttp
import pytest
import socketio

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ConfigError, RelayUnavailable, StoreUnavailable
from hermes_async.relay.auth import mint
from hermes_async.relay.line import Limits
from hermes_async.relay.server import _Websocket, create_app, serve
from tests.support.servers import wait_until_async
from tests.unit.relay.conftest import (
    SECRET,
    Station,
    background_tasks,
    only_memory,
    say,
    token,
)

pytestmark = pytest.mark.anyio


@only_memory
async def test_nobody_comes_in_without_a_valid_token(relay: Station) -> None:
    forged = mint("y" * 32, sub="x", sessions=["s"], ttl=60)
    for bad in (None, {}, {"token": ""}, {"token": "x"}, {"token": token("s", ttl=-5)}, {"token": forged}):
        refused: list[Any] = []
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        sio.on("connect_error", refused.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await sio.connect(relay.url, auth=bad, transports=["websocket"])
        assert refused[0]["data"]["code"] == "unauthorized"
        assert refused[0]["data"]["message"] == refused[0]["message"]


@only_memory
async def test_a_socket_is_closed_when_its_token_expires(relay: Station) -> None:
    async with relay.socket(token("s", ttl=0.2)) as socket:
        assert (await socket.ask("subscribe", {"session": "s"}))["ok"]
        await asyncio.wait_for(socket.gone.wait(), 5)
    assert socket.news == ["auth.expired"]
    assert not [name for name in background_tasks() if "feed" in name]


@only_memory
async def test_the_33rd_subscription_is_refused(relay: Station) -> None:
    async with relay.socket(token(*(f"s{n}" for n in range(33)))) as socket:
        answers = [await socket.ask("subscribe", {"session": f"s{n}"}) for n in range(33)]
        assert [answer["ok"] for answer in answers] == [True] * 32 + [False]
        assert answers[-1]["error"]["code"] == "too_many"
        assert (await socket.ask("subscribe", {"session": "s0"}))["ok"]
        await socket.ask("unsubscribe", {"session": "s0"})
        assert (await socket.ask("subscribe", {"session": "s32"}))["ok"]


@only_memory
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


UNFIT: list[tuple[Any, ...]] = [
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
]


@only_memory
async def test_garbage_is_answered_with_a_sentence(hermes: Hermes) -> None:
    async with Station(hermes, Limits(commands=1000)) as relay, relay.socket(token("s")) as socket:
        for said in UNFIT:
            for command in ("subscribe", "unsubscribe"):
                answer = await socket.ask(command, *said)
                assert (answer["ok"], answer["error"]["code"]) == (False, "invalid"), said
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


@only_memory
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


@only_memory
async def test_who_talks_without_listening_fills_no_memory(hermes: Hermes, relay: Station) -> None:
    """Commands, connects and forged acknowledgements all make the relay send; it must stop reading."""
    for number in range(400):
        await hermes.session("s").send_message(str(number) + "x" * 50_000)
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


def engine_sockets() -> list[Any]:
    import gc

    from engineio.async_socket import AsyncSocket

    return [thing for thing in gc.get_objects() if isinstance(thing, AsyncSocket)]


@only_memory
async def test_health_says_whether_it_hears(hermes: Hermes, relay: Station) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{relay.url}/healthz") as response:
            assert response.status == 200
            answer = await response.json()
            assert answer == {"status": "ok", "redis": await hermes.store.ping(), "hears": True}
        for path in ("/docs", "/"):
            async with http.get(relay.url + path) as response:
                assert response.status == 404


@only_memory
async def test_health_fails_without_the_store(
    hermes: Hermes, relay: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down() -> str:
        raise StoreUnavailable("down")

    monkeypatch.setattr(hermes.store, "ping", down)
    async with aiohttp.ClientSession() as http, http.get(f"{relay.url}/healthz") as response:
        assert response.status == 503
        assert await response.json() == {"status": "unavailable", "redis": None, "hears": True}


@only_memory
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


@only_memory
async def test_a_signal_stops_it(hermes: Hermes) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ready = asyncio.Event()
    running = asyncio.create_task(serve(hermes, "127.0.0.1", 0, SECRET, on_ready=lambda port: ready.set()))
    await ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 5)
    assert signal.getsignal(signal.SIGTERM) is before


@only_memory
async def test_a_stop_does_not_wait_for_who_does_not_read(
    hermes: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.relay.server.GRACE", 1)
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


@only_memory
async def test_a_port_in_use_and_a_short_secret_are_told_at_once(hermes: Hermes, relay: Station) -> None:
    with pytest.raises(RelayUnavailable, match=str(relay.port)):
        await serve(hermes, "127.0.0.1", relay.port, SECRET)
    with pytest.raises(ConfigError, match="32 bytes"):
        create_app(hermes, secret="short")


@only_memory
async def test_pings_of_who_does_not_read_fill_no_memory(relay: Station) -> None:
    """The answers to pings pass neither Engine.IO nor our own brakes."""
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(f"{relay.url}/socket.io/?EIO=4&transport=websocket")
        transport = ws._conn.transport
        transport.pause_reading()
        ping = b"\x89\xfd\0\0\0\0" + b"x" * 125
        for _ in range(200):
            transport.write(ping * 1000)
            while transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
        assert waiting_to_be_sent() < 1_000_000
        transport.abort()


def waiting_to_be_sent() -> int:
    import gc

    return sum(
        each.transport.get_write_buffer_size()
        for each in gc.get_objects()
        if isinstance(each, _Websocket) and each.transport is not None
    )


@only_memory
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"GET /hermes.js HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz",
        b"POST /v1/tasks/t/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
    ],
)
async def test_a_connection_that_asks_nothing_is_cut(
    relay: Station, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("hermes_async.relay.server.ASK_WITHIN", 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    gone = asyncio.create_task(reader.read(-1))
    writer.write(said)
    for _ in range(100):
        await asyncio.wait({gone}, timeout=0.1)
        if gone.done():
            break
        if said:
            writer.write(b"x")  # it goes on for ever
    assert gone.done()
    gone.exception()
    writer.transport.abort()


@only_memory
async def test_a_stop_does_not_wait_for_ever_for_a_store_that_swallows_a_cancellation(
    hermes: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def deaf_once(*_: object) -> Any:
        if not asked.is_set():
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        return {}

    monkeypatch.setattr("hermes_async.relay.revocation.LOOK_EVERY", 0.5)
    monkeypatch.setattr(hermes.store, "revoked", deaf_once)
    relay = Station(hermes)
    await relay.start()
    await asked.wait()
    await asyncio.wait_for(relay.stop(), 8)
    assert not background_tasks()


@only_memory
async def test_who_takes_a_long_answer_slowly_is_not_cut(
    hermes: Hermes, relay: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.relay.server.ASK_WITHIN", 0.1)
    for _ in range(200):
        await hermes.session("s").send_message("x" * 60_000)
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_connect(ours, ("127.0.0.1", relay.port))
        reader, writer = await asyncio.open_connection(sock=ours, limit=1_000)
        asked = (
            f"GET /v1/sessions/s/inbox?limit=500 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('s')}"
        )
        writer.write(f"{asked}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1)  # nothing can be awaited: that nothing happens is what counts
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        assert length > 3_000_000
        assert len(await reader.readexactly(length)) == length
        writer.close()


@only_memory
async def test_who_leaves_does_not_keep_the_websocket(relay: Station) -> None:
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(f"{relay.url}/socket.io/?EIO=4&transport=websocket")
        await ws.receive_str()
        await ws.send_str("40" + json.dumps({"token": token("s")}))
        await ws.receive_str()
        await ws.send_str("41")
        assert (await ws.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
