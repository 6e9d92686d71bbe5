"""How a server is reached that is not just a port: what works, and the sentence for what does not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from hermes_async.adapters.celery_queue import CeleryQueue
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.adapters.redis_store.connection import name_of
from hermes_async.bootstrap import Servers
from hermes_async.cli.checks import redis_findings
from hermes_async.domain.errors import QueueUnavailable, StoreUnavailable
from tests.support.guarded import USER, RestrictedServer, TlsServer
from tests.support.servers import BUSY, RedisServer
from tests.support.values import make_task

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestrictedServer]:
    server = RestrictedServer(tmp_path_factory.mktemp("restricted")).start()
    yield server
    server.kill()


@asynccontextmanager
async def both(url: str) -> AsyncIterator[tuple[RedisStore, CeleryQueue]]:
    store, queue = RedisStore(url), CeleryQueue(url, shares_store=False)
    yield store, queue
    await store.close()
    await queue.close()


async def refusals(url: str) -> list[str]:
    """What is said of it to who dispatches, to who publishes, and by `doctor`; each at once."""
    began = time.monotonic()
    async with both(url) as (store, queue):
        with pytest.raises(StoreUnavailable) as of_state:
            await store.create(make_task(), None, None)
        with pytest.raises(QueueUnavailable) as of_broker:
            await queue.publish_all([make_task()])
    (found,) = redis_findings(Servers(url, url))
    assert found.status == "broken"
    assert time.monotonic() - began < 3 * (3 + BUSY)
    said = [str(of_state.value), str(of_broker.value), found.detail]
    assert "\n" not in "".join(said)
    return said


OTHER = "ssl_certfile={client.pem}&ssl_keyfile={server.key}"
OURS = "ssl_certfile={client.pem}&ssl_keyfile={client.key}"


@pytest.mark.parametrize("behind", ["", "+list"])
@pytest.mark.parametrize(
    ("host", "query", "cure"),
    [
        ("127.0.0.1", OURS, "who has signed its certificate? add ?ssl_ca_certs=FILE to its URL"),
        ("localhost", f"{OURS}&ssl_ca_certs={{ca.pem}}", "does its URL name it as its certificate does?"),
        ("127.0.0.1", f"{OURS}&ssl_ca_certs={{none.pem}}", "are there the right files: ssl_ca_certs,"),
        ("127.0.0.1", f"{OURS}&ssl_ca_certs={{ca.key}}", "are there the right files: ssl_ca_certs,"),
        ("127.0.0.1", f"{OTHER}&ssl_ca_certs={{ca.pem}}", "are there the right files: ssl_ca_certs,"),
        ("127.0.0.1", "ssl_ca_certs={ca.pem}", "certificate"),
    ],
)
async def test_a_certificate_that_is_wrong(
    tls: TlsServer, behind: str, host: str, query: str, cure: str
) -> None:
    for name in ("ca.pem", "none.pem", "ca.key", "client.pem", "client.key", "server.key"):
        query = query.replace(f"{{{name}}}", tls.file(name))
    for said in await refusals(f"rediss{behind}://{host}:{tls.port}/0?{query}"):
        assert f"://{host}:{tls.port}/0 does not work (" in said
        assert cure in said


async def test_who_speaks_plainly_to_tls_is_told(tls: TlsServer) -> None:
    for said in await refusals(f"redis://localhost:{tls.port}/0"):
        assert said.endswith("; is it running and reachable, and not over TLS only (rediss://)?")


async def test_who_speaks_tls_to_a_plain_server_is_told(redis_server: RedisServer) -> None:
    for said in await refusals(f"rediss://localhost:{redis_server.port}/0"):
        assert "does it speak TLS at this port" in said


@pytest.mark.parametrize("user", [USER, "nobody"])
async def test_a_wrong_password_is_told_and_not_shown(restricted: RestrictedServer, user: str) -> None:
    for said in await refusals(f"redis://{user}:hush@127.0.0.1:{restricted.port}/5"):
        assert f"redis://***@127.0.0.1:{restricted.port}/5" in said
        assert said.endswith("; are user and password in its URL right, and odd characters percent-encoded?")


async def test_a_permission_that_is_missing_is_told(restricted: RestrictedServer) -> None:
    with restricted.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "poor", "on", "nopass", "+auth", "+hello", "+select", "+ping"
        )
    for said in await refusals(f"redis://poor:x@127.0.0.1:{restricted.port}/5"):
        assert said.endswith("; give its user the permissions that docs/redis.md lists")


@pytest.mark.parametrize("by_socket", [True, False])
async def test_a_password_may_have_any_signs(restricted: RestrictedServer, by_socket: bool) -> None:
    async with both(restricted.url_of(by_socket=by_socket)) as (store, queue):
        task = await store.create(make_task(), None, None)
        await queue.publish_all([task])
        assert await store.load(task.id) == task
    with restricted.client(db=5) as client:
        assert client.xlen("hermes.async") == 1
        client.flushdb()


@pytest.mark.parametrize("url", ["redis://no-such-host.invalid/0", "unix:///no/such/redis.sock"])
async def test_a_place_that_is_not_there_is_told(url: str) -> None:
    for said in await refusals(url):
        assert said.endswith(("; is the name of its host right?", "; is it running and reachable?"))


async def test_an_address_of_ipv6(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--bind", "127.0.0.1 ::1").start()
    url = f"redis://[::1]:{server.port}/0"
    try:
        async with both(url) as (store, queue):
            task = await store.create(make_task(), None, None)
            await queue.publish_all([task])
            assert await store.load(task.id) == task
    finally:
        server.kill()
    for said in await refusals(url):
        assert f"at {url} does not work" in said


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ({"redis_version": "6.2.0"}, "redis 6.2.0"),
        ({"redis_version": "10.0"}, "redis 10.0"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "valkey 9.1.2"),
    ],
)
def test_a_server_that_is_new_enough(info: dict[str, Any], name: str) -> None:
    assert name_of(info, "here") == name


@pytest.mark.parametrize("version", ["5.0.14", "6.0.16"])
async def test_a_server_that_is_too_old_is_told(
    redis_url: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None can be installed here, so one of today says that it is."""
    old = {"redis_version": version}
    monkeypatch.setattr(redis.Redis, "info", lambda *_: old)
    async with both(redis_url) as (store, _):
        store._client.set_response_callback("INFO", lambda _: old)
        with pytest.raises(StoreUnavailable) as told:
            await store.ping()
    sentence = f"Redis at {redis_url} is {version}: it must be 6.2 or newer, or Valkey; upgrade it"
    assert str(told.value) == sentence
    assert [found.detail for found in redis_findings(Servers(redis_url, redis_url))] == [sentence]
