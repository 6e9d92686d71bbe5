"""The transport to a server that wants to be spoken to in secret."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from hermes_async.adapters.celery_queue import CeleryQueue
from tests.support.guarded import TlsServer
from tests.support.inbox import Connect, Inbox, publish
from tests.support.values import make_task


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path / "redis", knows_us=False).start()
    yield server
    server.kill()


def test_over_tls_the_server_must_prove_who_it_is(secure: TlsServer, connect: Connect) -> None:
    publish(connect(secure.broker), "secret")
    inbox = Inbox(connect(secure.broker))
    assert inbox.drain(1) == ["secret"]
    inbox.messages[0].ack()
    place = secure.place.replace("rediss://", "redisstreams://")
    connection = connect(f"{place}?ssl_cert_reqs=none")
    publish(connection, "x")
    assert connection.default_channel.queue_declare("jobs", passive=True).message_count == 1
    stranger = Connection(place)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        stranger.ensure_connection(max_retries=1)
    stranger.release()


def test_the_queue_of_a_rediss_url_is_served_over_streams_and_tls(
    secure: TlsServer, connect: Connect
) -> None:
    queue = CeleryQueue(secure.url, shares_store=False)
    task = make_task()

    async def publish_and_close() -> None:
        await queue.publish_all([task])
        await queue.close()

    asyncio.run(publish_and_close())
    lane = Queue("hermes.async", Exchange(""), routing_key="hermes.async")
    inbox = Inbox(connect(secure.broker), lane)
    inbox.drain(1)
    assert [message.headers["id"] for message in inbox.messages] == [task.id]
