"""The transport to a server that wants to be spoken to in secret."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from hermes_async.adapters.celery_queue import CeleryQueue
from tests.support.inbox import Connect, Inbox, publish
from tests.support.servers import RedisServer, needed, redis_binary
from tests.support.values import make_task


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[RedisServer]:
    make_certificate(tmp_path)
    options = ["--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")]
    if not speaks_tls(options):
        pytest.skip("this Redis was built without TLS")
    server = RedisServer(tmp_path / "redis")
    secured = RedisServer(tmp_path / "redis", *options, "--tls-auth-clients", "no")
    secured._options += ["--tls-port", str(server.port)]
    yield from started(secured, server.port)


def started(server: RedisServer, tls_port: int) -> Iterator[RedisServer]:
    server.start()
    server.port = tls_port
    try:
        yield server
    finally:
        server.kill()


def make_certificate(folder: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)


def speaks_tls(options: list[str]) -> bool:
    command = [needed(redis_binary()), "--port", "0", "--tls-port", "-1", *options]
    said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return "tls-cert-file" not in said.stdout + said.stderr


def test_over_tls_the_server_must_prove_who_it_is(
    secure: RedisServer, connect: Connect, tmp_path: Path
) -> None:
    query = urlencode({"ssl_ca_certs": tmp_path / "cert.pem"})
    url = f"redisstreams://127.0.0.1:{secure.port}/0"
    publish(connect(f"{url}?{query}"), "secret")
    inbox = Inbox(connect(f"{url}?{query}"))
    assert inbox.drain(1) == ["secret"]
    inbox.messages[0].ack()
    connection = connect(f"{url}?ssl_cert_reqs=none")
    publish(connection, "x")
    assert connection.default_channel.queue_declare("jobs", passive=True).message_count == 1
    stranger = Connection(url)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        stranger.ensure_connection(max_retries=1)
    stranger.release()


def test_the_queue_of_a_rediss_url_is_served_over_streams_and_tls(
    secure: RedisServer, connect: Connect, tmp_path: Path
) -> None:
    query = urlencode({"ssl_ca_certs": tmp_path / "cert.pem"})
    queue = CeleryQueue(f"rediss://127.0.0.1:{secure.port}/0?{query}", shares_store=False)
    task = make_task()

    async def publish_and_close() -> None:
        await queue.publish_all([task])
        await queue.close()

    asyncio.run(publish_and_close())
    lane = Queue("hermes.async", Exchange(""), routing_key="hermes.async")
    inbox = Inbox(connect(f"redisstreams://127.0.0.1:{secure.port}/0?{query}"), lane)
    inbox.drain(1)
    assert [message.headers["id"] for message in inbox.messages] == [task.id]
