"""Ten thousand random events, and tokens of every wrong kind: nothing gets through, nothing crashes."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from contextlib import suppress
from typing import Any

import aiohttp
import jwt
import psutil
import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.relay.auth import AUDIENCE
from hermes_async.relay.line import Limits
from tests.support.servers import wait_until_async
from tests.unit.relay.conftest import SECRET, Station, new_task, only_memory, say, token

pytestmark = [pytest.mark.anyio, only_memory]

EVENTS, SEED = 10_000, 4
HIDDEN = "what nobody else may know"
COMMANDS = (
    *("subscribe", "unsubscribe", "dispatch", "cancel", "send", "answer", "message", "inbox", "ack"),
    *("events", "connect", "disconnect", "auth.expired", "relay.draining", "", "x" * 300, "__init__", "*"),
)
NAMES = ("session", "task", "after", "subagent", "input", "text", "data", "value", "seqs", "limit", "force")
TEXTS = (
    "",
    "0",
    "42",
    '["x"',
    "\x00",
    "\ud800",
    "../..",
    "*",
    "{p00}",
    "💥" * 50,
    "theirs",
    "mine",
    "y" * 5_000,
)


class Dice:
    """Says random things, the same in every run."""

    def __init__(self, seed: int, foreign: str) -> None:
        self._random = random.Random(seed)
        self._foreign = foreign

    def value(self, depth: int = 0) -> Any:
        kind = self._random.randrange(9 if depth < 4 else 6)
        if kind < 2:
            return self._random.choice([*TEXTS, self._foreign])
        if kind == 2:
            return self._random.choice([None, True, False, 0, -1, 1, 2**53, 2**70, 1.5, 1e308])
        if kind in (3, 4):
            return self._random.choice(["theirs", "mine", self._foreign])
        if kind == 5:
            return self._random.randrange(100)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self._random.randrange(5))]
        names = self._random.sample(NAMES, self._random.randrange(6))
        return {name: self.value(depth + 1) for name in names}

    def wish(self) -> list[Any]:
        """Return a command as it should be, for a session that may be foreign."""
        session = {"session": self._random.choice(["mine", "theirs"])}
        return self._random.choice(
            [
                ["subscribe", session],
                ["inbox", session],
                ["message", {**session, "text": "x"}],
                ["ack", {**session, "seqs": [1, 2, 3]}],
                ["dispatch", {**session, "subagent": "x", "input": "x"}],
                ["cancel", {"task": self._foreign}],
                ["send", {"task": self._foreign, "text": "x"}],
                ["answer", {"task": self._foreign, "value": 1}],
            ]
        )

    def packet(self) -> str | bytes:
        dice = self._random.randrange(20)
        if dice == 0:
            return self._random.randbytes(self._random.randrange(50))
        if dice == 1:
            return self._random.choice(["43", "40", "41", "44", "45", "2", "3", "1", "0", "6", ""])
        if dice == 2:
            return f"43{self._random.randrange(50)}[]"
        if dice == 3:
            return "42" + "[" * self._random.randrange(3_000)
        if dice in (4, 5, 6):
            return f"42{dice}" + json.dumps(self.wish())
        number = str(self._random.randrange(1_000)) if self._random.random() < 0.8 else ""
        said = [self._random.choice(COMMANDS), *(self.value() for _ in range(self._random.randrange(1, 3)))]
        return "42" + number + json.dumps(said)


class Attacker:
    """One who sends all that, and notes what comes back."""

    def __init__(self, relay: Station, http: aiohttp.ClientSession, dice: Dice) -> None:
        self._relay = relay
        self._http = http
        self._dice = dice
        self.heard: list[str] = []
        self.connections = 0

    async def attack(self, count: int) -> None:
        while count > 0:
            self.connections += 1
            async with self._http.ws_connect(
                f"{self._relay.url}/socket.io/?EIO=4&transport=websocket", max_msg_size=0
            ) as ws:
                await ws.send_str("40" + json.dumps({"token": token("mine")}))
                listening = asyncio.create_task(self._listen(ws))
                with suppress(ConnectionError):
                    while count > 0 and not ws.closed:
                        packet = self._dice.packet()
                        count -= 1
                        if isinstance(packet, bytes):
                            await ws.send_bytes(packet)
                        else:
                            await ws.send_bytes(b"") if packet == "" else await ws.send_str(_sendable(packet))
                        if count % 20 == 0:
                            await asyncio.sleep(0.002)
                await ws.close()
                await listening

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if isinstance(message.data, str):
                self.heard.append(message.data)


def _sendable(packet: str) -> str:
    return packet.encode("utf-8", "replace").decode()


async def test_10_000_random_events_change_and_learn_nothing_that_is_foreign(
    hermes: Hermes, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = await new_task(hermes, "theirs")
    await hermes.session("theirs").send_message(HIDDEN)
    before = await hermes.store.snapshot("theirs")
    async with Station(hermes, Limits(commands=1e9)) as relay, aiohttp.ClientSession() as http:
        attackers = [Attacker(relay, http, Dice(SEED + n, foreign.id)) for n in range(4)]
        await attackers[0].attack(500)  # what is made at first use is there
        size = psutil.Process().memory_info().rss
        with caplog.at_level(logging.ERROR, "hermes.relay"):
            await asyncio.gather(*(attacker.attack(EVENTS // 4) for attacker in attackers))
        assert psutil.Process().memory_info().rss - size < 50_000_000
        async with relay.socket(token("theirs")) as witness:
            await witness.ask("subscribe", {"session": "theirs", "after": before.seq})
            await say(hermes, "theirs", 1)
            await wait_until_async(lambda: witness.events)
    assert await hermes.store.snapshot("theirs") != before  # but for what the witness heard:
    assert await hermes.store.last_seq("theirs") == before.seq + 1
    assert len(await hermes.store.inbox("theirs", 0, 100)) == 2
    heard = [text for attacker in attackers for text in attacker.heard]
    assert any('"ok":true' in text for text in heard)
    assert not [text for text in heard if HIDDEN in text]
    assert not [text for text in heard if text.startswith("42") and '"session":"theirs"' in text]
    assert not [text for text in heard if '"internal"' in text]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def forged(**changed: Any) -> str:
    claims = {"aud": AUDIENCE, "exp": time.time() + 60, "sid": ["s"], "sub": "x", **changed}
    return jwt.encode({key: value for key, value in claims.items() if value is not None}, SECRET)


def unsigned() -> str:
    return jwt.encode({"aud": AUDIENCE, "exp": time.time() + 60, "sid": ["s"], "sub": "x"}, None, "none")


TOKENS: dict[str, Any] = {
    "alg none": unsigned(),
    "another secret": jwt.encode(
        {"aud": AUDIENCE, "exp": time.time() + 60, "sid": ["s"], "sub": "x"}, "y" * 40
    ),
    "another algorithm": jwt.encode(
        {"aud": AUDIENCE, "exp": time.time() + 60, "sid": ["s"], "sub": "x"}, SECRET * 2, "HS512"
    ),
    "expired": forged(exp=time.time() - 60),
    "another audience": forged(aud="another"),
    "no audience": forged(aud=None),
    "no expiry": forged(exp=None),
    "no sessions": forged(sid=None),
    "a text for sessions": forged(sid="s"),
    "numbers for sessions": forged(sid=[1]),
    "an unknown scope": forged(scope="everything"),
    "a number for a name": forged(jti=None) and jwt.encode({"aud": AUDIENCE, "jti": ["x"]}, SECRET),
    "another kid": jwt.encode({"aud": AUDIENCE}, "z" * 40, headers={"kid": "../../dev/null"}),
    "cut off": forged()[:-4],
    "a list": ["x"],
    "an object": {"token": "x"},
    "a number": 1,
}


@pytest.mark.parametrize("bad", TOKENS.values(), ids=list(TOKENS))
async def test_a_token_of_a_wrong_kind_opens_nothing(hermes: Hermes, bad: Any) -> None:
    async with (
        Station(hermes) as relay,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{relay.url}/socket.io/?EIO=4&transport=websocket") as ws,
    ):
        await ws.receive_str()
        await ws.send_str("40" + json.dumps({"token": bad}))
        answer = await ws.receive_str()
        assert answer.startswith("44")
        assert '"unauthorized"' in answer
        await ws.send_str('421["subscribe",{"session":"s"}]')
        with suppress(TimeoutError):
            assert '"ok":true' not in str((await asyncio.wait_for(ws.receive(), 0.2)).data)
