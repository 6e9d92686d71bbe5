"""Event streams over HTTP: the log, whole and in order, wherever they are cut and taken up again."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import aiohttp
import pytest

from hermes_async.core.feed import Reader
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.relay.http import sse
from hermes_async.relay.line import Limits
from tests.support.servers import wait_until_async
from tests.unit.relay.caller import Caller, Frame
from tests.unit.relay.conftest import (
    MakeStore,
    Station,
    background_tasks,
    finish,
    hermes_over,
    new_task,
    only_memory,
    progress,
    say,
    token,
)

pytestmark = pytest.mark.anyio
#: Events of the log that is cut at every place.
LENGTH = 24


@pytest.fixture
def call(http: aiohttp.ClientSession, relay: Station) -> Caller:
    return Caller(http, relay.url, token("s"))


class Pushed:
    """Follows by event stream, as a browser does: by the id of the last event."""

    def __init__(self, call: Caller, path: str) -> None:
        self._call, self._path = call, path
        self.ended = False
        self.last = ""
        self.seen: list[dict[str, Any]] = []

    async def follow(self, count: int) -> None:
        """Take up to so many events, then cut the connection."""
        headers = {"Last-Event-ID": self.last} if self.last else {}
        async with self._call.stream(self._path, headers=headers) as frames:
            async for frame in frames:
                self.ended = frame.name == "end"
                if frame.id is not None:
                    self.last = frame.id
                    self.seen.append(frame.data)
                if self.ended or len(self.seen) == count:
                    return


class Asked:
    """Follows by long poll."""

    def __init__(self, call: Caller, path: str) -> None:
        self._call, self._path = call, path
        self.ended = False
        self.last = 0
        self.seen: list[dict[str, Any]] = []

    async def follow(self, count: int) -> None:
        """Take up to so many events, however many an answer has."""
        while not self.ended and len(self.seen) < count:
            where = {"after": self.last, "limit": min(500, count - len(self.seen)), "wait": 30}
            answer = await self._call("GET", self._path, params=where)
            if answer.status == 503:  # it stops, or its store is away
                raise aiohttp.ClientError
            said = answer.said
            assert said.keys() == {"events", "after", "gap", "snapshot", "end"}
            self.seen += said["events"]
            self.last, self.ended = said["after"], said["end"]


FOLLOWERS = pytest.mark.parametrize("follower", [Pushed, Asked])
Follower = type[Pushed] | type[Asked]


async def wrote(hermes: Hermes, session: str) -> tuple[str, list[dict[str, Any]]]:
    """Write a task's log between another's; return its id and what it must look like."""
    task, other = await new_task(hermes, session), await new_task(hermes, session)
    for number in range(1, LENGTH - 2):
        await progress(hermes, task, range(number, number + 1))
        await progress(hermes, other, range(number, number + 1))
    await finish(hermes, task)
    await say(hermes, session, 2)
    return task.id, await log_of(hermes, session)


async def log_of(hermes: Hermes, session: str) -> list[dict[str, Any]]:
    return [event.model_dump(mode="json") for event in (await hermes.store.events(session, 0, 500)).events]


def readers() -> list[str]:
    return [name for name in background_tasks() if "feed" in name]


@FOLLOWERS
async def test_a_log_cut_at_every_event_is_the_log(hermes: Hermes, call: Caller, follower: Follower) -> None:
    task_id, log = await wrote(hermes, "s")
    own = [event for event in log if event["task_id"] == task_id]
    assert len(own) == LENGTH

    async def check(path: str, wanted: list[dict[str, Any]], cut: int, *, ends: bool) -> None:
        it = follower(call, path)
        await it.follow(cut)
        assert len(it.seen) == cut
        await it.follow(len(wanted) + ends)
        assert it.seen == wanted
        assert it.ended == ends

    for cut in range(1, LENGTH):
        await check(f"/v1/tasks/{task_id}/events", own, cut, ends=True)
    for cut in range(1, len(log)):
        await check("/v1/sessions/s/events", log, cut, ends=False)
    await wait_until_async(lambda: not readers())


@FOLLOWERS
async def test_every_event_comes_while_it_is_written_and_the_relay_restarts(
    hermes: Hermes, http: aiohttp.ClientSession, follower: Follower
) -> None:
    task = await new_task(hermes, "s")
    async with Station(hermes) as relay:
        it = follower(Caller(http, relay.url, token("s")), f"/v1/tasks/{task.id}/events")

        async def follow() -> None:
            while not it.ended:
                try:
                    await it.follow(10_000)
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)

        following = asyncio.create_task(follow())
        for number in range(1, 301):
            await progress(hermes, task, range(number, number + 1))
            await asyncio.sleep(0.001 if number % 5 == 0 else 0)
            if number in (100, 200):
                await relay.stop()
                await relay.start()
        await finish(hermes, task)
        await asyncio.wait_for(following, 20)
    assert it.seen == await log_of(hermes, "s")
    assert len(it.seen) == 303
    assert not background_tasks()


async def test_news_come_at_once(hermes: Hermes, call: Caller) -> None:
    waiting = asyncio.create_task(call("GET", "/v1/sessions/s/events?wait=60"))
    async with call.stream("/v1/sessions/s/events") as frames:
        assert await anext(frames) == Frame()  # in how many milliseconds to come again
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await say(hermes, "s", 1)
        frame = await anext(frames)
        assert (frame.id, frame.name, frame.data["seq"]) == ("1", "session.message", 1)
        assert [event["seq"] for event in (await waiting).said["events"]] == [1]
        assert time.monotonic() - began < 1


async def test_what_is_over_ends_at_once(hermes: Hermes, call: Caller) -> None:
    task = await new_task(hermes, "s")
    last = await finish(hermes, task)
    path, sse_only = f"/v1/tasks/{task.id}/events", {"Accept": "text/event-stream"}
    for after in (last, last + 5, 2**53):
        assert (await call("GET", path, params={"after": after}, headers=sse_only)).status == 204
        said = (await call("GET", path, params={"after": after, "wait": 60})).said
        assert (said["events"], said["end"], said["after"]) == ([], True, after)
    nothing = (await call("GET", "/v1/sessions/s/events", params={"after": last, "wait": 0.1})).said
    assert (nothing["events"], nothing["end"], nothing["after"]) == ([], False, last)


@only_memory
async def test_the_place_that_a_browser_names_wins(hermes: Hermes, call: Caller) -> None:
    await say(hermes, "s", 5)
    async with call.stream("/v1/sessions/s/events?after=1", headers={"Last-Event-ID": "3"}) as frames:
        assert [(await anext(frames)).id for _ in range(3)] == [None, "4", "5"]
    for bad in ("x", "-1", "1.5", "²"):
        asked = ("GET", "/v1/sessions/s/events")
        assert (await call.refused(*asked, headers={"Last-Event-ID": bad}))[0] == 422


async def test_a_trimmed_place_gets_a_gap_and_a_snapshot(
    make_store: MakeStore, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.relay.tail.BATCH_BYTES", 100)  # the snapshot comes in parts
    async with hermes_over(make_store(10)) as hermes, Station(hermes) as relay:
        call = Caller(http, relay.url, token("s"))
        tasks = [await new_task(hermes, "s") for _ in range(5)]
        await finish(hermes, tasks[0])
        await say(hermes, "s", 400)
        kept = (await hermes.store.events("s", 0, 500)).events
        gap = [2, kept[0].seq - 1]
        said = (await call("GET", "/v1/sessions/s/events?after=1")).said
        assert (said["events"], said["gap"], said["after"], said["end"]) == ([], gap, gap[1], False)
        assert {task["id"] for task in said["snapshot"]["tasks"]} == {task.id for task in tasks}
        assert said["snapshot"]["seq"] == 411
        following = (await call("GET", f"/v1/sessions/s/events?after={gap[1]}&limit=2")).said
        assert [event["seq"] for event in following["events"]] == [gap[1] + 1]
        async with call.stream("/v1/sessions/s/events?after=1") as frames:
            assert (await anext(frames)).name is None
            parts = [await anext(frames) for _ in tasks]
            assert [part.data["gap"] for part in parts] == [gap] * 5
            assert [part.id for part in parts] == [None] * 4 + [str(gap[1])]
            assert [part.data["snapshot"]["more"] for part in parts] == [True] * 4 + [False]
            assert (await anext(frames)).id == str(gap[1] + 1)
        async with call.stream(f"/v1/tasks/{tasks[0].id}/events") as frames:
            assert [frame.name async for frame in frames] == [None, "gap", "end"]


@only_memory
async def test_a_silent_stream_is_kept_alive_and_closed_when_its_token_expires(
    http: aiohttp.ClientSession, relay: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT", 0.2)
    call = Caller(http, relay.url, token("s", ttl=1.0))
    async with call.stream("/v1/sessions/s/events") as frames:
        names = [frame.name async for frame in frames]
    assert names[-1] == "auth.expired"
    assert 3 <= names.count(None) <= 12
    assert not readers()


@only_memory
async def test_a_stream_says_goodbye_when_the_relay_stops(
    hermes: Hermes, http: aiohttp.ClientSession
) -> None:
    async with Station(hermes) as relay:
        call = Caller(http, relay.url, token("s"))
        async with call.stream("/v1/sessions/s/events") as frames:
            await anext(frames)
            stopping = asyncio.create_task(relay.stop())
            assert [frame.name async for frame in frames] == ["relay.draining"]
            await stopping
    assert not background_tasks()


@only_memory
async def test_a_stream_outlives_a_store_that_is_away(
    hermes: Hermes, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with call.stream("/v1/sessions/s/events") as frames:
        await anext(frames)
        with monkeypatch.context() as away:

            async def events(*_: object) -> None:
                raise StoreUnavailable("away")

            away.setattr(hermes.store, "events", events)
            await say(hermes, "s", 1)
            assert await call.refused("GET", "/v1/sessions/s/events") == (503, "unavailable")
            await asyncio.sleep(0.2)
        assert (await anext(frames)).id == "1"


@only_memory
async def test_who_does_not_read_is_dropped_and_nothing_is_kept_for_him(
    hermes: Hermes, http: aiohttp.ClientSession
) -> None:
    for _ in range(200):
        await hermes.session("s").send_message("x" * 60_000)
    async with Station(hermes, Limits(ack_timeout=0.5)) as relay:
        stopped = socket.create_connection(("127.0.0.1", relay.port))
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = f"GET /v1/sessions/s/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('s')}\r\n"
        stopped.sendall(f"{asked}Accept: text/event-stream\r\n\r\n".encode())
        await wait_until_async(lambda: readers())
        await wait_until_async(lambda: not readers())
        it = Pushed(Caller(http, relay.url, token("s")), "/v1/sessions/s/events")
        await it.follow(200)  # others are served
        assert len(it.seen) == 200
        stopped.close()
    assert not background_tasks()


@only_memory
async def test_who_leaves_is_forgotten(call: Caller) -> None:
    async with call.stream("/v1/sessions/s/events") as frames:
        await anext(frames)
        await wait_until_async(lambda: readers())
    await wait_until_async(lambda: not readers())


@only_memory
async def test_a_poll_whose_time_runs_out_while_the_reader_is_let_go_loses_nothing(
    hermes: Hermes, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Reader.stop

    async def slowly(reader: Reader) -> None:
        try:
            await asyncio.sleep(60)  # until the time of the request has run out
        finally:
            await stop(reader)

    polling = asyncio.create_task(call("GET", "/v1/sessions/s/events?wait=1"))
    await wait_until_async(lambda: any("hermes-feed s" in name for name in background_tasks()))
    monkeypatch.setattr(Reader, "stop", slowly)
    await say(hermes, "s", 1)
    said = (await polling).said
    assert [event["seq"] for event in said["events"]] == [1] and said["after"] == 1
