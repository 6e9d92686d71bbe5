"""A relay on a real port in the test's own event loop, over each store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import socketio

from hermes_async.adapters.memory import MemoryQueue, MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.ids import new_task_id, new_traceparent
from hermes_async.core.ports import Store
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig, SubagentSpec
from hermes_async.domain.events import task_event
from hermes_async.domain.task import Birth, Lane, Progress, Task
from hermes_async.relay.auth import mint
from hermes_async.relay.line import Limits
from hermes_async.relay.server import serve

SECRET = "a secret of the tests, long enough"
MakeStore = Callable[[int], Store]
#: For what does not depend on the store.
only_memory = pytest.mark.parametrize("make_store", ["memory"], indirect=True)


@pytest.fixture(params=["memory", "redis"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    """Make a store whose log keeps about so many events."""
    if request.param == "memory":
        return lambda length: MemoryStore(max_length=length)
    url = request.getfixturevalue("redis_url")
    return lambda length: RedisStore(url, log_length=length)


@pytest.fixture
async def hermes(make_store: MakeStore) -> AsyncIterator[Hermes]:
    async with hermes_over(make_store(10_000)) as hermes:
        yield hermes


@pytest.fixture
async def relay(hermes: Hermes) -> AsyncIterator[Station]:
    async with Station(hermes) as station:
        yield station
    assert not background_tasks()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@asynccontextmanager
async def hermes_over(store: Store) -> AsyncIterator[Hermes]:
    hermes = Hermes(Registry(AgentsConfig()), store, MemoryQueue())
    try:
        yield hermes
    finally:
        await hermes.close()


def background_tasks() -> list[str]:
    """What the relay, its sockets and its readers have left running."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    coros = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    ours = [name for name in names if name.startswith(("hermes-relay", "hermes-feed"))]
    return ours + [coro for coro in coros if "AsyncServer" in coro or "AsyncSocket" in coro]


class Station:
    """A relay that can be stopped and started again on the same port."""

    def __init__(self, hermes: Hermes, limits: Limits | None = None, origins: tuple[str, ...] = ()) -> None:
        self.hermes = hermes
        self.origins = origins
        self.limits = limits
        self.port = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Station:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = serve(
            self.hermes,
            "127.0.0.1",
            self.port,
            SECRET,
            on_ready=ready.set_result,
            limits=self.limits,
            origins=self.origins,
        )
        self._running = asyncio.create_task(serving)
        await asyncio.wait({ready, self._running}, return_when=asyncio.FIRST_COMPLETED)
        self.port = ready.result()

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    @asynccontextmanager
    async def socket(self, token: str | None) -> AsyncIterator[Socket]:
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        socket = Socket(sio)
        auth = {"token": token} if token is not None else None
        try:
            await sio.connect(self.url, auth=auth, transports=["websocket"])
            yield socket
        finally:
            socket.hold.set()
            await sio.disconnect()
            await sio.eio.wait()
            if sio.eio.http is not None:
                await sio.eio.http.close()


class Socket:
    """A bare Socket.IO client that notes what it is sent."""

    def __init__(self, sio: socketio.AsyncClient) -> None:
        self.sio = sio
        self.batches: list[dict[str, Any]] = []
        self.news: list[str] = []
        self.gone = asyncio.Event()
        #: Batches are acknowledged only while this is set.
        self.hold = asyncio.Event()
        self.hold.set()
        sio.on("events", self._take)
        sio.on("disconnect", self._go)
        for name in ("auth.expired", "relay.draining"):
            sio.on(name, lambda *_, name=name: self.news.append(name))

    async def ask(self, command: str, *said: Any) -> Any:
        return await self.sio.call(command, said, timeout=5)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches for event in batch["events"]]

    async def _take(self, batch: dict[str, Any]) -> None:
        self.batches.append(batch)
        await self.hold.wait()

    def _go(self, *_: object) -> None:
        self.gone.set()


def token(*sessions: str, ttl: float = 600) -> str:
    return mint(SECRET, sub="tests", sessions=list(sessions), ttl=ttl)


async def say(hermes: Hermes, session_id: str, count: int, start: int = 1) -> None:
    """Write numbered messages into a session."""
    session = hermes.session(session_id)
    for number in range(start, start + count):
        await session.send_message(str(number))


async def new_task(hermes: Hermes, session_id: str) -> Task:
    """Make a task that runs; there are workers for as many as a test may want."""
    await hermes.store.enlist("w1", Lane.ASYNC, 10_000, 3600.0)
    birth = Birth(
        id=new_task_id(session_id),
        session_id=session_id,
        subagent="research",
        options=SubagentSpec(id="research"),
        traceparent=new_traceparent(),
    )
    created = await hermes.store.create(Task(birth=birth, agent="research"), None, None)
    claimed = await hermes.store.claim(created.id, "w1", 60)
    assert claimed is not None
    return claimed


async def progress(hermes: Hermes, task: Task, numbers: Iterator[int] | range) -> None:
    for number in numbers:
        said = Progress(progress_percent=None, message=str(number))
        assert await hermes.store.append(task_event(task, "task.progress", said, n=number))


async def finish(hermes: Hermes, task: Task) -> int:
    seq = await hermes.store.append(task_event(task, "task.cancelled"))
    assert seq
    return seq
