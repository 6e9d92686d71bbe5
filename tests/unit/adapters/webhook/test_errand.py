"""Where nothing is ever posted: a sinkhole listens on every address of this machine, and hears nothing."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientConnectorError, ClientSession
from aiohttp.abc import AbstractResolver

from hermes_async.adapters.guarded import connector as make_connector
from hermes_async.adapters.guarded import target
from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.webhook import sender
from hermes_async.adapters.webhook.errand import ERRAND
from hermes_async.adapters.webhook.sender import WebhookSender
from hermes_async.core.callbacks import Dead, Failed, Outcome, Succeeded
from hermes_async.domain.task import TaskResult
from tests.support.places import PUBLIC, URLS, Names
from tests.support.receiver import Receiver, sinkhole
from tests.unit.adapters.webhook.conftest import knowing, make_call

pytestmark = pytest.mark.anyio

#: The module; its function has the same name.
guarded_connector = sys.modules[make_connector.__module__]


@pytest.fixture(name="sinkhole")
async def sinkhole_(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """It listens on every address, IPv4 and IPv6, at a port to which webhooks may be posted."""
    async with sinkhole() as hole:
        monkeypatch.setattr(sender, "ERRAND", replace(ERRAND, ports=(443, 8443, hole.port)))
        yield hole


async def sent(url: str, resolver: AbstractResolver, allow: set[str] | None = None) -> Outcome:
    """Post to a URL that was written past the checks of agents.yaml."""
    known = knowing("https://example.com/")
    webhook = known.config.agent("boss").subagents[0].webhook
    assert webhook is not None
    object.__setattr__(webhook, "url", url)
    call = make_call(parent="boss")
    posting = WebhookSender(
        known, MemoryStore().ledger, allow=allow or set(), resolver=lambda: resolver, timeout=5.0
    )
    return await posting.send(call, TaskResult.of(call.task))


def test_the_corpus_is_large() -> None:
    assert len(URLS) >= 40


@pytest.mark.parametrize("url", URLS)
async def test_nothing_is_posted_there(url: str, sinkhole: Receiver) -> None:
    outcome = await sent(url.replace("PORT", str(sinkhole.port)), Names())
    assert isinstance(outcome, Dead)
    assert outcome.error.type == "Refused"
    assert "hush" not in outcome.error.message


async def test_a_name_that_moves_inside_between_two_tries_is_looked_up_once_for_each(
    sinkhole: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def refuse(info: Any) -> socket.socket:
        opened.append(info[4][0])
        raise ConnectionRefusedError

    made = guarded_connector.TCPConnector
    monkeypatch.setattr(
        guarded_connector, "TCPConnector", lambda **said: made(**{**said, "socket_factory": refuse})
    )
    names = Names({"moves.test": [[PUBLIC], ["127.0.0.1"]]})
    url = f"https://moves.test:{sinkhole.port}/"
    first, second = await sent(url, names), await sent(url, names)
    assert isinstance(first, Failed)
    assert isinstance(second, Dead)
    assert opened == [PUBLIC]
    assert names.asked == ["moves.test", "moves.test"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_no_socket_is_opened_even_if_a_wrong_address_came_past_the_look_up(
    address: str, sinkhole: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_connector, "_Checked", lambda resolver, errand: resolver)
    names = Names({"liar.test": [[address]]})
    to = target(f"https://liar.test:{sinkhole.port}/", sender.ERRAND, ())
    async with ClientSession(connector=make_connector(to, names, True)) as session:
        with pytest.raises(ClientConnectorError, match="not a public address"):
            await session.post(to.url)
    assert names.asked == ["liar.test"]


async def test_the_sinkhole_hears_what_is_allowed(receiver: Receiver) -> None:
    assert isinstance(await sent(receiver.url, Names(), {receiver.place}), Succeeded)
    assert isinstance(await sent(receiver.url, Names(), {f"localhost:{receiver.port}"}), Dead)
    assert isinstance(await sent(receiver.url, Names(), {"127.0.0.1:1"}), Dead)
    assert receiver.connections == 1
