"""Several relays side by side: clients hop between them while they, and their connections, are killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle

import pytest

from hermes_async.domain.events import AnyEvent
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient
from tests.support.servers import Process, RedisServer, free_port
from tests.support.site import Site, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]

SECRET = "a secret of several relays, long enough"
EVENTS, CLIENTS = 1_500, 5


class Relays:
    """Two relays, and a front without any memory: each connection goes to the next one that lives."""

    def __init__(self, site: Site, spawn: Callable[..., Process]) -> None:
        self._site = site
        self._spawn = spawn
        self.ports = [free_port(), free_port()]
        self.processes: dict[int, Process] = {}
        self._turn = cycle(self.ports)
        self._pumps: set[asyncio.Task[None]] = set()
        #: How many connections each of them was given.
        self.given = dict.fromkeys(self.ports, 0)

    async def start(self, port: int) -> None:
        argv = [sys.executable, "-m", "hermes_async.cli", "relay", "--port", str(port)]
        self.processes[port] = self._spawn(argv, {**self._site.env, "HERMES_RELAY__SECRET": SECRET}, "relay")
        await until_said(self.processes[port], "relay on ")

    async def end(self, port: int, number: int) -> None:
        """End one by a signal and start it again at the same place."""
        self.processes[port].signal(number)
        await asyncio.to_thread(self.processes[port].wait, 15)
        await self.start(port)

    @asynccontextmanager
    async def front(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for pump in list(self._pumps):
                pump.cancel()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in (next(self._turn), next(self._turn)):
            with suppress(OSError):
                back, forth = await asyncio.open_connection("127.0.0.1", port)
                self.given[port] += 1
                both = [asyncio.create_task(_pump(reader, forth)), asyncio.create_task(_pump(back, writer))]
                self._pumps.update(both)
                return
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def two_relays(site: Site, spawn: Callable[..., Process]) -> AsyncIterator[tuple[Relays, str]]:
    relays = Relays(site, spawn)
    await asyncio.gather(*map(relays.start, relays.ports))
    async with relays.front() as url:
        yield relays, url


async def heard(client: RelayClient, last: int) -> list[AnyEvent]:
    events = []
    async for event in client.follow(session="chat"):
        events.append(event)
        if event.seq == last:
            break
    return events  # type: ignore[return-value]


@pytest.mark.timeout(180)
async def test_what_is_heard_is_the_log_whatever_is_killed(
    site: Site, spawn: Callable[..., Process], redis_server: RedisServer
) -> None:
    async with AsyncExitStack() as stack:
        relays, url = await stack.enter_async_context(two_relays(site, spawn))
        token = mint(SECRET, sub="tests", sessions=["chat"], ttl=600)
        clients = [await stack.enter_async_context(RelayClient(url, token)) for _ in range(CLIENTS)]
        hearing = [asyncio.create_task(heard(client, EVENTS)) for client in clients]
        first, second = relays.ports
        with redis_server.client() as redis:
            for number in range(1, EVENTS + 1):
                await site.session.send_message(str(number))
                if number % 10 == 0:
                    await asyncio.sleep(0.01)
                if number in (200, 800):
                    await relays.end(first, signal.SIGKILL)
                elif number in (500, 1_100):
                    await relays.end(second, signal.SIGTERM)
                elif number in (300, 900, 1_300):
                    redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                elif number in (400, 1_200):
                    redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        told = await asyncio.wait_for(asyncio.gather(*hearing), 60)
    log = (await site.hermes.store.events("chat", 0, EVENTS)).events
    assert [event.data.text for event in log] == [str(number) for number in range(1, EVENTS + 1)]  # type: ignore[union-attr]
    assert told == [list(log)] * CLIENTS
    assert min(relays.given.values()) > CLIENTS // 2
