"""Who is let into a relay, from where, how many, and how they are asked to leave."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import aiohttp
import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.relay import sockets
from hermes_async.relay.line import Limits
from hermes_async.relay.server import create_app
from tests.support.servers import wait_until_async
from tests.unit.relay.conftest import SECRET, Station, only_memory, token

pytestmark = [pytest.mark.anyio, only_memory]
PATH = "/socket.io/?EIO=4&transport=websocket"


@pytest.mark.parametrize(
    ("limits", "told"),
    [(Limits(connections=2), "this relay has 2"), (Limits(per_address=2), "your address has 2")],
)
async def test_one_more_than_may_be_is_told_so_and_comes_in_when_another_leaves(
    hermes: Hermes, limits: Limits, told: str
) -> None:
    async with Station(hermes, limits) as relay, aiohttp.ClientSession() as http:
        async with relay.socket(token("s")), relay.socket(token("s")):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(relay.url + PATH)
            assert refused.value.status == 429
            async with http.get(relay.url + "/healthz") as response:
                assert response.status == 200
        async with relay.socket(token("s")) as socket:
            assert (await socket.ask("subscribe", {"session": "s"}))["ok"]


async def test_who_shows_no_token_is_sent_away(hermes: Hermes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_async.relay.backpressure.ENTER_WITHIN", 0.2)
    async with Station(hermes) as relay, aiohttp.ClientSession() as http, relay.socket(token("s")) as guest:
        async with http.ws_connect(relay.url + PATH) as ws:
            await ws.receive_str()
            began = time.monotonic()
            gone = await asyncio.wait_for(ws.receive(), 5)
            assert gone.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert time.monotonic() - began < 2
        assert (await guest.ask("subscribe", {"session": "s"}))["ok"]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((), "http://evil.example", False),
        ((), None, True),
        (("https://chat.example",), "https://chat.example", True),
        (("https://chat.example",), "http://evil.example", False),
        (("*",), "http://evil.example", True),
    ],
)
async def test_only_pages_of_the_right_origin_connect(
    hermes: Hermes, origins: tuple[str, ...], origin: str | None, allowed: bool
) -> None:
    async with Station(hermes, origins=origins) as relay, aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(relay.url + PATH, origin=origin) as ws:
                assert (await ws.receive_str()).startswith("0{")
                assert allowed
        except aiohttp.WSServerHandshakeError as refused:
            assert refused.status == 403
            assert not allowed


async def test_a_stop_closes_many_sockets_one_after_the_other_and_at_once_when_it_is_urgent(
    hermes: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "DRAIN_RATE", 10.0)
    monkeypatch.setattr(sockets, "DRAIN", 100.0)
    relay = Station(hermes)
    await relay.start()
    async with AsyncExitStack() as stack:
        guests = [await stack.enter_async_context(relay.socket(token("s"))) for _ in range(20)]
        stopping = asyncio.create_task(relay.stop())
        await wait_until_async(lambda: any(guest.gone.is_set() for guest in guests))
        assert not all(guest.gone.is_set() for guest in guests)
        await stopping
        assert [guest.news for guest in guests] == [["relay.draining"]] * 20


async def test_an_app_of_somebody_else_has_the_same_limits(hermes: Hermes) -> None:
    app = create_app(hermes, secret=SECRET, limits=Limits(connections=0))
    said: list[dict[str, object]] = []

    async def send(message: object) -> None:
        said.append(dict(message))  # type: ignore[call-overload]

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    await app({"type": "websocket", "path": "/socket.io/", "headers": []}, receive, send)
    assert [message["type"] for message in said] == ["websocket.close"]
