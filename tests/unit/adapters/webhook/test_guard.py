"""Where nothing is ever posted: a sinkhole listens on every address of this machine, and hears nothing."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientConnectorError, ClientSession, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.webhook import guard
from hermes_async.adapters.webhook.guard import Refused, connector, is_public, target
from hermes_async.adapters.webhook.sender import WebhookSender
from hermes_async.core.callbacks import Dead, Failed, Outcome, Succeeded
from hermes_async.domain.task import TaskResult
from tests.support.receiver import Receiver
from tests.unit.adapters.webhook.conftest import knowing, make_call

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.215.14"
#: Names, and what the DNS says of them, one answer after the other; the last one stays.
NAMES: dict[str, list[list[str]]] = {
    "localhost.": [["127.0.0.1"]],
    "inside.test": [["127.0.0.1"]],
    "intranet.test": [["10.1.2.3"]],
    "mixed.test": [[PUBLIC, "127.0.0.1"]],
    "mixed6.test": [["2606:4700::1111", "::1"]],
    "six.test": [["::1"]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "nat64.test": [["64:ff9b::7f00:1"]],
    "metadata.test": [["169.254.169.254"]],
    "xn--bcher-kva.test": [["127.0.0.1"]],
}

#: Every one of these means this machine or a private network; PORT is the sinkhole's.
ADDRESSES = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "2130706433",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "%31%32%37.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "localhost",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.1.1",
    "240.0.0.1",
    "255.255.255.255",
    *NAMES,
    "bücher.test",
]
URLS = [
    *(f"https://{host}:PORT/hook" for host in ADDRESSES),
    "http://127.0.0.1:PORT/",
    "http://example.com/",
    "https://example.com:22/",
    "https://example.com:0/",
    "https://user@127.0.0.1:PORT/",
    f"https://{PUBLIC}:8443@127.0.0.1:PORT/",
    "https://127.0.0.1:PORT@example.com/",
    "https://:hush@127.0.0.1:PORT/",
    "https://example.com\\@127.0.0.1:PORT/",
    "https://127.0.0.1:PORT\\@example.com/",
    "https://[::1/",
    "https://é&.319a]%[_&+9@",
    "https://:PORT/",
    "https:///hook",
    "https:127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
    "ftp://127.0.0.1:PORT/",
    "unix:///run/redis.sock",
    "ws://127.0.0.1:PORT/",
    "tcp://127.0.0.1:PORT/",
    "",
]


@dataclass
class Names(AbstractResolver):
    """A DNS of few names, over what this machine resolves itself (numbers in every form among it)."""

    names: dict[str, list[list[str]]] = field(default_factory=lambda: {**NAMES})
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.names:
            return await ThreadedResolver().resolve(host, port, socket.AF_UNSPEC)
        answers = self.names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [result(host, address, port) for address in found]

    async def close(self) -> None:
        pass


def result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": family,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST,
    }


@pytest.fixture
async def sinkhole(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """It listens on every address, IPv4 and IPv6, at a port to which webhooks may be posted."""
    async with Receiver(host="::") as six, Receiver(host="0.0.0.0", port=six.port) as four:
        monkeypatch.setattr(guard, "PORTS", (443, 8443, four.port))
        yield four
        assert (six.connections, four.connections) == (0, 0)


async def sent(url: str, resolver: AbstractResolver, allow: set[str] | None = None) -> Outcome:
    """Post to a URL that was written past the checks of agents.yaml."""
    known = knowing("https://example.com/")
    webhook = known.config.agent("boss").subagents[0].webhook
    assert webhook is not None
    object.__setattr__(webhook, "url", url)
    call = make_call(parent="boss")
    sender = WebhookSender(
        known, MemoryStore().ledger, allow=allow or set(), resolver=lambda: resolver, timeout=5.0
    )
    return await sender.send(call, TaskResult.of(call.task))


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

    made = guard.TCPConnector
    monkeypatch.setattr(guard, "TCPConnector", lambda **said: made(**{**said, "socket_factory": refuse}))
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
    monkeypatch.setattr(guard, "_Checked", lambda resolver: resolver)
    names = Names({"liar.test": [[address]]})
    to = target(f"https://liar.test:{sinkhole.port}/", ())
    async with ClientSession(connector=connector(to, names, True)) as session:
        with pytest.raises(ClientConnectorError, match="not a public address"):
            await session.post(to.url)
    assert names.asked == ["liar.test"]


async def test_the_sinkhole_hears_what_is_allowed(receiver: Receiver) -> None:
    assert isinstance(await sent(receiver.url, Names(), {receiver.place}), Succeeded)
    assert isinstance(await sent(receiver.url, Names(), {f"localhost:{receiver.port}"}), Dead)
    assert isinstance(await sent(receiver.url, Names(), {"127.0.0.1:1"}), Dead)
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_a_public_place_may_be_posted_to() -> None:
    for url in ("https://example.com/hook", f"https://{PUBLIC}:8443/", "https://[2606:4700::1111]/x?y=@z"):
        assert not target(url, ()).allowed


def test_the_cure_is_named() -> None:
    with pytest.raises(Refused, match=r"put localhost:9000 into|names \(localhost:9000\)"):
        target("http://localhost:9000/", ())


@settings(deadline=None, database=None, max_examples=500)
@given(
    st.text(max_size=40)
    | st.builds(
        "{}//{}{}/{}".format,
        st.sampled_from(["https:", "HTTPS:", "http:", "https:\t", ""]),
        st.text("0123456789abxf.:[]@%-_\\/①。ß\u202e ", max_size=30) | st.ip_addresses().map(str),
        st.sampled_from(["", ":443", ":8443", ":22", ":", ":99999", "]"]),
        st.text(max_size=10),
    )
)
def test_whatever_a_url_looks_like_it_is_refused_or_leads_to_a_name_or_a_public_address(text: str) -> None:
    try:
        url = target(text, ()).url
    except Refused:
        return
    assert (url.scheme, url.user, url.password) == ("https", None, None)
    assert url.port in guard.PORTS
    assert url.raw_host
    numeric = url.raw_host.replace(".", "").isdigit() or ":" in url.raw_host
    assert not numeric or is_public(url.raw_host)
