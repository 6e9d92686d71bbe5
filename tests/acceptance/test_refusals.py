"""A Redis that is there and refuses: all say why, nothing is lost, and nothing need be restarted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
import redis

from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.task import Lane, TaskStatus
from tests.support import agents
from tests.support.asking import ended
from tests.support.servers import BUSY, Process, RedisServer, wait_until
from tests.support.site import Site, site_over, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", aof=True).start()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", *["on", ">one", "~*", "&*", "+@all"])
    yield server
    server.kill()


@pytest.fixture
async def site(
    server: RedisServer,
    tmp_path: Path,
    spawn: Callable[..., Process],
    anyio_backend: str,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Site]:
    url = server.url.replace("://", f"{request.param}://agent:one@")
    async with site_over(url, tmp_path, spawn) as site:
        yield site


# -- how it is made to refuse ------------------------------------------------------------------------------
@contextmanager
def full(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """It has no memory left."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def replica(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """It has lost a failover."""
    client.replicaof("127.0.0.1", server.port)  # its own, so that it keeps what it has
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def unsaved(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """Its disk is full."""
    obstacle = server.folder / "dump.rdb"
    (obstacle / "x").mkdir(parents=True)
    client.config_set("save", "3600 100000")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    try:
        yield
    finally:
        client.config_set("save", "")


@contextmanager
def busy(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """A script does not end."""
    client.config_set("lua-time-limit", 50)

    def loop() -> None:
        with server.client() as other, suppress(redis.ResponseError):
            other.eval("while true do end", 0)

    thread = Thread(target=loop)
    thread.start()
    wait_until(lambda: is_busy(client))
    try:
        yield
    finally:
        client.script_kill()
        thread.join()


def is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError as exc:
        return str(exc).startswith("BUSY")
    return False


@contextmanager
def crowded(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """It has as many connections as it may."""
    client.config_set("maxclients", 1)
    client.execute_command("CLIENT", "KILL", "USER", "agent")
    try:
        yield
    finally:
        client.config_set("maxclients", 1000)


@contextmanager
def forbidden(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """Its user has lost a permission."""
    client.execute_command("ACL", "SETUSER", "agent", "-evalsha", "-xreadgroup", "-brpop")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "agent", "+@all")


@contextmanager
def locked(server: RedisServer, client: redis.Redis) -> Iterator[None]:
    """Its user has another password."""
    client.execute_command("ACL", "SETUSER", "agent", "resetpass", ">two")
    client.execute_command("CLIENT", "KILL", "USER", "agent")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "agent", ">one")


Refusal = Callable[[RedisServer, redis.Redis], AbstractContextManager[None]]
#: What all are told.
SAID: dict[Refusal, str] = {
    full: r"refuses to work \(.*maxmemory.*\); its memory is full: raise its maxmemory",
    replica: r"refuses to work \(.*read only replica.*\); it is a replica: name its master in the URL",
    unsaved: r"refuses to work \(.*RDB.*\); it cannot save to its disk: see its log",
    busy: r"refuses to work \(.*BUSY.*\); a script holds it up: wait, or end that with SCRIPT KILL",
    crowded: r"does not work \(.*\); (raise its maxclients|is it running and reachable)",
    forbidden: r"refuses to work \(.*permissions.*\); give its user the permissions that docs/redis.md lists",
    locked: r"lets nobody in \(.*\); are user and password in its URL right",
}


#: Kombu's stock transport ends the worker when it is cut off and refused at once; `up` starts another.
ENDS_OVER_LISTS = (crowded, locked)
CASES = [
    *(pytest.param("", refuse, id=f"streams-{refuse.__name__}") for refuse in SAID),
    *(
        pytest.param("+list", refuse, id=f"lists-{refuse.__name__}")
        for refuse in SAID
        if refuse not in ENDS_OVER_LISTS
    ),
]


@pytest.mark.parametrize(("site", "refuse"), CASES, indirect=["site"])
async def test_a_redis_that_refuses_for_a_while(site: Site, server: RedisServer, refuse: Refusal) -> None:
    workers = await site.workers(*Lane)
    running = [await site.dispatch(agents.nap_once, 1), await site.dispatch(agents.sync_nap_once, 1)]
    await site.running(*running)
    with server.client(single_connection_client=True) as client, refuse(server, client):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=SAID[refuse]):
            await site.dispatch(agents.echo, "meanwhile")
        assert time.monotonic() - began < 3 + BUSY
        for worker in workers:  # whose tasks have ended meanwhile
            await until_said(worker, "task.completed of")
            assert re.search(f"task.completed of .* cannot go on yet: .*{SAID[refuse]}", worker.log)
    for task in [await ended(handle) for handle in running]:
        assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1)
    async with asyncio.timeout(30):
        assert await (await site.dispatch(agents.echo, "after")) == "after"
        assert await (await site.dispatch(agents.sync_echo, "after")) == "after"
    assert not [worker.log for worker in workers if not worker.alive or "CRITICAL" in worker.log]
