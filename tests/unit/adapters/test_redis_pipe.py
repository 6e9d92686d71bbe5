"""Concurrent calls travel together, in order, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from hermes_async.adapters.redis_store.connection import client_for
from hermes_async.adapters.redis_store.meaning import meaning
from hermes_async.adapters.redis_store.pipe import BATCH, Pipe, Script
from hermes_async.adapters.redis_store.wire import Command, Done, Wire
from hermes_async.core.home import Home
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable
from tests.support.servers import BUSY, RedisServer, free_port
from tests.support.silent import silent_server

pytestmark = pytest.mark.anyio
PREFIX = "test:{p00}:"
POST, CENSUS = Script("post", "recent"), Script("census")
#: What every script is told: how long logs are, how many may run, when to send again.
RULES = (100, 0, 60_000, 10_000)


class CountingPipe(Pipe):
    """Notes how much travels with each round trip."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.trips: list[int] = []

    async def _connected(self) -> Wire:
        wire = await super()._connected()
        if not isinstance(wire.send, partial):
            wire.send = partial(self._counted, wire.send)  # type: ignore[method-assign]
        return wire

    def _counted(self, send: Callable[..., None], commands: Sequence[Command], done: Done) -> None:
        self.trips.append(len(commands))
        send(commands, done)


@asynccontextmanager
async def piped(url: str) -> AsyncIterator[CountingPipe]:
    client = client_for(url)
    pipe = CountingPipe(client, "here", Home(), RULES)
    try:
        yield pipe
    finally:
        await pipe.close()
        await client.aclose()


@pytest.fixture
async def pipe(redis_url: str, anyio_backend: str) -> AsyncIterator[CountingPipe]:
    async with piped(redis_url) as made:
        yield made


def post(pipe: Pipe, text: str, session: str = "chat", prefix: str = PREFIX) -> Any:
    """Add one event to a log; the reply is its seq."""
    return pipe.call(POST, prefix, session, 0, 1_000, text, "session.message", "", "", 0, "", "{}")


async def test_what_is_asked_in_one_tick_travels_together_and_in_order(
    pipe: CountingPipe,
) -> None:
    await post(pipe, "first")
    pipe.trips.clear()
    assert await asyncio.gather(*(post(pipe, str(n)) for n in range(100))) == list(range(2, 102))
    assert await asyncio.gather(*(post(pipe, str(n)) for n in range(100, 200))) == list(range(102, 202))
    # Who is alone does not wait for others, until there are some; up to 64 calls are one run of their script.
    assert pipe.trips == [1, 2, 2]


async def test_calls_of_several_scripts_and_partitions_and_reads_travel_together(pipe: CountingPipe) -> None:
    await post(pipe, "0", "another")  # the script is known
    pipe.trips.clear()
    asked = [
        *(post(pipe, str(n), "chat") for n in range(3)),
        pipe.read("ECHO", "between"),
        *(post(pipe, str(n), "other", "test:{p01}:") for n in range(2)),
        pipe.call(CENSUS, PREFIX, 10),
        post(pipe, "4", "chat"),
        pipe.read("ECHO", "after"),
    ]
    *replies, census, last, after = await asyncio.gather(*asked)
    assert replies == [1, 2, 3, "between", 1, 2]
    assert (census[:4], last, after) == ([0, 0, 0, 0], 4, "after")
    assert pipe.trips[:2] == [1, 4]  # the first one, which was alone; two scripts and two reads


async def test_a_call_that_fails_costs_the_others_of_its_run_nothing(pipe: CountingPipe) -> None:
    await asyncio.gather(post(pipe, "a"), pipe.read("SET", f"{PREFIX}events:bad", "no stream"))
    replies = await asyncio.gather(
        post(pipe, "b"), post(pipe, "c", "bad"), post(pipe, "d"), post(pipe, "e"), return_exceptions=True
    )
    assert [replies[0], *replies[2:]] == [2, 3, 4]
    assert isinstance(replies[1], StoreDamaged)
    assert "WRONGTYPE" in str(replies[1])
    assert await pipe.read("HGET", f"{PREFIX}session:chat", "seq") == "4"
    counted = await pipe.read("HGET", "test:metrics", "session.message ")
    assert counted == "5"  # the one that failed was counted before it was logged, as it always is
    assert await post(pipe, "f") == 5


async def test_who_is_alone_again_is_sent_at_once(pipe: CountingPipe) -> None:
    await asyncio.gather(*(pipe.read("PING") for _ in range(3)))
    await pipe.read("PING")
    pipe.trips.clear()
    asked = pipe.read("PING")
    assert pipe.trips == [1]
    await asked


async def test_a_pipeline_has_its_limit(pipe: CountingPipe) -> None:
    await asyncio.gather(pipe.read("PING"), pipe.read("PING"), pipe.read("PING"))
    pipe.trips.clear()
    await asyncio.gather(*(pipe.read("GET", str(n)) for n in range(BATCH + 1)))
    assert pipe.trips == [BATCH, 1]


async def test_what_comes_meanwhile_is_the_next_batch(pipe: CountingPipe) -> None:
    first = asyncio.ensure_future(post(pipe, "a"))
    while not pipe.trips:
        await asyncio.sleep(0)
    assert await asyncio.gather(first, post(pipe, "b"), post(pipe, "c")) == [1, 2, 3]


async def test_a_server_that_forgot_the_scripts_is_told_them_again(
    pipe: CountingPipe, redis_url: str
) -> None:
    await asyncio.gather(post(pipe, "first"), pipe.read("PING"), pipe.read("PING"))
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    replies = await asyncio.gather(*(post(pipe, str(n)) for n in range(3)), pipe.read("PING"))
    assert replies == [2, 3, 4, True]
    assert pipe.trips[-2:] == [2, 2]  # the calls and the ping; then the script and the calls


async def test_only_the_asker_of_what_cannot_be_sent_fails(pipe: CountingPipe) -> None:
    replies = await asyncio.gather(
        post(pipe, "a"), _refused(pipe, "GET", "\ud800"), post(pipe, "b"), return_exceptions=True
    )
    assert [replies[0], replies[2]] == [1, 2]
    assert isinstance(replies[1], UnicodeEncodeError)


async def _refused(pipe: Pipe, *command: str) -> Any:
    return await pipe.read(*command)


async def test_only_the_asker_of_what_redis_refuses_fails(pipe: CountingPipe) -> None:
    await pipe.read("SET", "text", "x")
    replies = await asyncio.gather(
        pipe.read("GET", "text"), pipe.read("HGET", "text", "a"), return_exceptions=True
    )
    assert replies[0] == "x"
    assert isinstance(replies[1], StoreDamaged)
    assert "WRONGTYPE" in str(replies[1])


async def test_who_stops_waiting_disturbs_nobody(pipe: CountingPipe) -> None:
    gone = asyncio.ensure_future(post(pipe, "a"))
    stays = asyncio.ensure_future(post(pipe, "b"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 2


async def test_a_fault_of_ours_reaches_the_askers_and_the_next_are_served(pipe: CountingPipe) -> None:
    connected = pipe._connected

    async def broken() -> Any:
        pipe._connected = connected  # type: ignore[method-assign]
        raise RuntimeError("a fault of ours")

    pipe._connected = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await post(pipe, "a")
    assert await post(pipe, "b") == 1


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    async with piped(f"redis://127.0.0.1:{free_port()}/0") as pipe:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"Redis at here does not work .*is it running"):
            await post(pipe, "a")
        assert time.monotonic() - began < 1


async def test_a_server_that_says_nothing_is_told_within_three_seconds() -> None:
    """Also to those who ask while the first ones are waiting."""
    async with silent_server() as port, piped(f"redis://127.0.0.1:{port}/0") as pipe:

        async def ask(after: float) -> float:
            await asyncio.sleep(after)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await post(pipe, "a")
            return time.monotonic() - began

        waits = await asyncio.gather(ask(0), ask(0), ask(0.5), ask(1.0))
        assert max(waits) < 3 + BUSY


# -- one connection for life ---------------------------------------------------------------------------------
@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


@asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[Pipe]:
    client = client_for(server.url)
    pipe = Pipe(client, "here", Home())
    await pipe.read("PING")
    yield pipe
    await pipe.close()
    await client.aclose()


async def test_a_connection_that_was_closed_is_made_again_unnoticed(own_server: RedisServer) -> None:
    async with opened(own_server) as pipe:
        with own_server.client() as other:
            assert other.client_kill_filter(_type="normal", skipme=True) >= 1
        assert await pipe.read("ECHO", "again") == "again"
        own_server.restart()
        replies = await asyncio.gather(*(pipe.read("ECHO", str(n)) for n in range(5)))
        assert replies == list("01234")


async def test_no_reply_of_a_broken_trip_reaches_the_next(own_server: RedisServer) -> None:
    async with opened(own_server) as pipe:
        asked = [asyncio.ensure_future(pipe.read("ECHO", str(n))) for n in range(3)]
        await asyncio.sleep(0)
        assert pipe._wire is not None
        pipe._wire._fail(RedisConnectionError("it breaks"))
        for one in asked:
            one.cancel()
        assert await pipe.read("ECHO", "mine") == "mine"


async def test_who_closes_waits_for_what_nobody_else_waits_for_and_does_nothing_meanwhile(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select = selector.select

    def counted(timeout: float | None) -> Any:
        nonlocal looks
        looks += 1
        return select(timeout)

    async with opened(own_server) as pipe:
        with own_server.client() as other:
            other.client_pause(500)
        gone = pipe.read("ECHO", "late")
        gone.cancel()
        monkeypatch.setattr(selector, "select", counted)
        await pipe.close()
    assert looks < 50


REFUSES: dict[str, Sequence[str]] = {
    "it is full": ["CONFIG SET maxmemory 1"],
    "it is a replica": ["REPLICAOF 127.0.0.1 1"],
    "it is a replica that has lost its master": [
        "CONFIG SET replica-serve-stale-data no",
        "REPLICAOF 127.0.0.1 1",
    ],
    "it has no replica": ["CONFIG SET min-replicas-to-write 1"],
    "it may not be asked": ["ACL SETUSER default -evalsha"],
}


@pytest.mark.parametrize("why", REFUSES)
async def test_a_server_that_refuses_for_now_is_away(own_server: RedisServer, why: str) -> None:
    async with piped(own_server.url) as pipe:
        await asyncio.gather(post(pipe, "a"), post(pipe, "b"), pipe.read("PING"))
        with own_server.client() as other:
            for command in REFUSES[why]:
                other.execute_command(*command.split())
            for asked in (["c"], ["d", "e"]):
                replies = await asyncio.gather(*(post(pipe, id) for id in asked), return_exceptions=True)
                assert [type(reply) for reply in replies] == [StoreUnavailable] * len(asked)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", True),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.", True),
        (
            "Error running script (call to f_1): @user_script:7: @user_script: 7: -OOM command not allowed",
            True,
        ),
        ("user_script:7: attempt to compare nil with number script: 1, on @user_script:7.", False),
        ("BUSYGROUP Consumer Group name already exists", False),
        ("value is not an integer or out of range", False),
    ],
)
def test_what_a_reply_means(said: str, means: bool) -> None:
    error = meaning(ResponseError(said), "here")
    assert type(error) is (StoreUnavailable if means else StoreDamaged)
    assert said.removesuffix(".") in str(error)


async def test_after_an_outage_it_works_again(own_server: RedisServer) -> None:
    async with opened(own_server) as pipe:
        own_server.stop()
        with pytest.raises(StoreUnavailable):
            await pipe.read("PING")
        own_server.start()
        assert await pipe.read("PING")
