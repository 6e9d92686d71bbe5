"""One try at a time, against receivers that behave, and receivers that do not."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from hermes_async.adapters.memory import MemoryStore
from hermes_async.adapters.webhook.schedule import LONGEST_WISH
from hermes_async.adapters.webhook.sender import WebhookSender
from hermes_async.core.callbacks import Dead, Failed, Outcome, Succeeded
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.callback import Call
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import TaskResult
from tests.support.receiver import Receiver, Script, hang, reset, status
from tests.unit.adapters.webhook.conftest import knowing, make_call

pytestmark = pytest.mark.anyio

OLD, NEW = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))


def sender_to(receiver: Receiver, *secrets: str, timeout: float = 5.0) -> WebhookSender:
    known = knowing(receiver.url, secrets or None)
    return WebhookSender(known, MemoryStore().ledger, allow={receiver.place}, timeout=timeout)


async def sent(sender: WebhookSender, call: Call) -> Outcome:
    return await sender.send(call, TaskResult.of(call.task))


def failed(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed)
    return outcome


@pytest.mark.parametrize("secret", [OLD, NEW])
async def test_each_try_verifies_and_has_the_same_id_and_body(receiver: Receiver, secret: str) -> None:
    receiver.then(status(500))
    first = make_call()
    again = Call(first.callback.model_copy(update={"failures": 1}), first.task, fence=2)
    assert isinstance(await sent(sender_to(receiver, NEW, OLD), first), Failed)
    assert isinstance(await sent(sender_to(receiver, NEW, OLD), again), Succeeded)
    bodies = [Webhook(secret).verify(post.body, post.headers) for post in receiver.posts]
    assert bodies[0] == bodies[1]
    assert bodies[0]["data"]["task_id"] == first.task.id
    assert {post.headers["webhook-id"] for post in receiver.posts} == {first.id}
    assert receiver.posts[0].line == "POST /hook HTTP/1.1"
    assert receiver.posts[0].headers["content-type"] == "application/json"
    assert receiver.posts[0].headers["host"] == receiver.place


@pytest.mark.parametrize("code", [200, 201, 204, 299])
async def test_any_2xx_is_a_success(receiver: Receiver, code: int) -> None:
    receiver.then(status(code))
    assert isinstance(await sent(sender_to(receiver), make_call()), Succeeded)


@pytest.mark.parametrize("code", [300, 304, 400, 401, 404, 408, 429, 500, 503, 599])
async def test_any_other_is_tried_again(receiver: Receiver, code: int) -> None:
    receiver.then(status(code))
    outcome = failed(await sent(sender_to(receiver), make_call()))
    assert outcome.error.type == f"HTTP {code}"
    assert outcome.delay == pytest.approx(5, rel=0.1)


async def test_the_tenth_failure_is_the_last(receiver: Receiver) -> None:
    receiver.then(status(500), status(500))
    assert isinstance(await sent(sender_to(receiver), make_call(failures=8)), Failed)
    assert isinstance(await sent(sender_to(receiver), make_call(failures=9)), Dead)


async def test_gone_is_dead_at_once(receiver: Receiver) -> None:
    receiver.then(status(410))
    outcome = await sent(sender_to(receiver), make_call())
    assert isinstance(outcome, Dead)
    assert outcome.error.type == "HTTP 410"


@pytest.mark.parametrize(
    ("code", "wish", "delay"),
    [(429, "77", 77), (503, "88", 88), (503, "999999", LONGEST_WISH), (500, "77", 5)],
)
async def test_retry_after(receiver: Receiver, code: int, wish: str, delay: float) -> None:
    receiver.then(status(code, retry_after=wish))
    assert failed(await sent(sender_to(receiver), make_call())).delay == pytest.approx(delay, rel=0.1)


async def test_a_redirect_is_a_failure_and_nobody_goes_there(receiver: Receiver) -> None:
    async with Receiver() as inside:
        receiver.then(status(307, location=inside.url), status(302, location="//[::1]/"))
        for _ in range(2):
            outcome = failed(await sent(sender_to(receiver), make_call()))
            assert "redirects are not followed" in outcome.error.message
        assert inside.connections == 0


async def drip_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_continues(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("script", [hang, drip_continues, drip_head])
async def test_nobody_holds_a_try_for_longer_than_its_time(receiver: Receiver, script: Script) -> None:
    receiver.then(script)
    began = time.monotonic()
    outcome = failed(await sent(sender_to(receiver, timeout=0.5), make_call()))
    assert time.monotonic() - began < 5
    assert outcome.error.message
    assert outcome.error.type == "TimeoutError" or script is drip_head  # too many headers come first


async def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("script", [endless_body, drip_body])
async def test_the_status_decides_and_the_body_is_left_alone(receiver: Receiver, script: Script) -> None:
    receiver.then(script)
    began = time.monotonic()
    assert isinstance(await sent(sender_to(receiver, timeout=10.0), make_call()), Succeeded)
    assert time.monotonic() - began < 5


async def gibberish(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-\xff\xfe\xed\xa0\x80" + b"y" * 5_000 + b"\r\n\r\n")


async def giant_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000_000 + b"\r\n\r\n")


async def switch(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")


@pytest.mark.parametrize("script", [reset, gibberish, giant_head, switch])
async def test_what_is_no_answer_is_a_failure(receiver: Receiver, script: Script) -> None:
    receiver.then(script)
    outcome = failed(await sent(sender_to(receiver, NEW), make_call()))
    assert outcome.error.type
    assert len(outcome.error.message.encode()) < 2_000
    assert isinstance(await sent(sender_to(receiver, NEW), make_call()), Succeeded)


async def banner(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-x\r\n\r\n")


async def test_what_is_no_answer_does_not_show_the_url(receiver: Receiver) -> None:
    receiver.then(banner)
    known = knowing(f"{receiver.url}/s3cret?token=s3cret")
    sender = WebhookSender(known, MemoryStore().ledger, allow={receiver.place})
    assert "s3cret" not in failed(await sent(sender, make_call())).error.message


async def test_a_try_that_was_given_up_counts_as_any_other(receiver: Receiver) -> None:
    error = ErrorInfo(type="TimeoutError")
    assert failed(sender_to(receiver).failed(make_call(failures=8), error)).delay > 3600
    assert isinstance(sender_to(receiver).failed(make_call(failures=9), error), Dead)


async def test_nobody_listens(receiver: Receiver) -> None:
    await receiver.close()
    assert failed(await sent(sender_to(receiver), make_call())).error.type == "ClientConnectorError"
    await receiver.open()


async def test_no_proxy_of_the_environment_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with Receiver() as proxy:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password hush")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.place}")
        assert isinstance(await sent(sender_to(receiver), make_call()), Succeeded)
        assert proxy.connections == 0
    assert "authorization" not in receiver.posts[0].headers


async def test_over_tls_the_name_is_asked_for_and_proved(tmp_path: Path, anyio_backend: str) -> None:
    files = [str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", files[0], "-out", files[1]]
    subprocess.run(["openssl", "req", "-x509", *key, *subject], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files[1], files[0])
    async with Receiver(tls=tls) as receiver:
        url, place = f"https://localhost:{receiver.port}/hook", f"localhost:{receiver.port}"
        stranger = WebhookSender(knowing(url), MemoryStore().ledger, allow={place})
        assert "Certificate" in failed(await sent(stranger, make_call())).error.type
        trust = ssl.create_default_context(cafile=files[1])
        friend = WebhookSender(knowing(url), MemoryStore().ledger, allow={place}, tls=trust)
        assert isinstance(await sent(friend, make_call()), Succeeded)
        wrong = WebhookSender(knowing(receiver.url), MemoryStore().ledger, allow={receiver.place}, tls=trust)
        assert "Certificate" in failed(await sent(wrong, make_call())).error.type
    assert receiver.names[1] == "localhost"
    assert [post.headers["host"] for post in receiver.posts] == [place]


async def test_a_process_that_does_not_know_the_webhook_posts_nothing(receiver: Receiver) -> None:
    nobody = WebhookSender(Registry(AgentsConfig()), MemoryStore().ledger, allow={receiver.place})
    outcome = failed(await sent(nobody, make_call()))
    assert "knows no webhook of 'echo' for boss" in outcome.error.message
    assert receiver.connections == 0


async def test_a_try_can_be_cancelled(receiver: Receiver) -> None:
    receiver.then(hang)
    trying = asyncio.create_task(sent(sender_to(receiver), make_call()))
    while not receiver.posts:
        await asyncio.sleep(0.01)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying


async def test_no_secret_is_in_what_is_told(receiver: Receiver) -> None:
    receiver.then(status(500))
    sender = sender_to(receiver, NEW)
    outcome = await sent(sender, make_call())
    assert NEW not in repr(sender) + repr(outcome)
    assert NEW not in json.dumps(receiver.posts[0].headers)
