"""A relay that does not hear says so, and hears again when it can."""

from __future__ import annotations

import asyncio

import aiohttp
import jwt
import pytest
import socketio

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.relay import ear
from hermes_async.relay.auth import mint
from tests.support.proxy import Mode, proxy_to
from tests.support.servers import RedisServer, wait_until_async
from tests.unit.relay.conftest import SECRET, Station, hermes_over, say, token

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "EVERY", 0.3)
    monkeypatch.setattr(ear, "DEAF_AFTER", 1.2)
    monkeypatch.setattr("hermes_async.relay.revocation.LOOK_EVERY", 0.2)


async def health(relay: Station) -> tuple[int, bool]:
    async with aiohttp.ClientSession() as http, http.get(f"{relay.url}/healthz") as response:
        return response.status, (await response.json())["hears"]


async def test_a_relay_hears_itself(hermes: Hermes) -> None:
    async with Station(hermes) as relay:
        await asyncio.sleep(2 * ear.DEAF_AFTER)
        assert await health(relay) == (200, True)


@pytest.mark.parametrize("fault", [Mode.HALF_OPEN, Mode.DROP])
@pytest.mark.usefixtures("redis_url")  # an empty one
async def test_who_cannot_hear_says_so_and_hears_again(redis_server: RedisServer, fault: Mode) -> None:
    with proxy_to(redis_server.port) as proxy:
        store = RedisStore(proxy.url)
        async with hermes_over(store) as hermes, Station(hermes) as relay, relay.socket(token("s")) as socket:
            await socket.ask("subscribe", {"session": "s"})
            await wait_until_async(lambda: _is(relay, (200, True)))
            proxy.set(fault)
            await wait_until_async(lambda: _is(relay, (503, False)))
            proxy.set(Mode.PASS)
            await wait_until_async(lambda: _is(relay, (200, True)), timeout=20)
            await say(hermes, "s", 3)
            await wait_until_async(lambda: len(socket.events) == 3)


async def _is(relay: Station, wanted: tuple[int, bool]) -> bool:
    return await health(relay) == wanted


async def test_a_revoked_token_is_hung_up_on_and_not_let_in_again(hermes: Hermes) -> None:
    revoked, other = token("s"), mint(SECRET, sub="other", sessions=["s"], ttl=60)
    async with Station(hermes) as relay, relay.socket(revoked) as socket, relay.socket(other) as witness:
        name = claims(revoked)["jti"]
        await hermes.store.revoke_token(name, 60)
        await asyncio.wait_for(socket.gone.wait(), 5)
        assert socket.news == ["auth.expired"]
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with relay.socket(revoked):
                pass
        assert (await witness.ask("subscribe", {"session": "s"}))["ok"]
        await hermes.store.revoke_token(name, 0.01)
        await asyncio.sleep(0.05)
        async with relay.socket(revoked) as again:
            assert (await again.ask("subscribe", {"session": "s"}))["ok"]


def claims(made: str) -> dict[str, str]:
    found: dict[str, str] = jwt.decode(made, options={"verify_signature": False})
    return found
