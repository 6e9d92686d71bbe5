"""A task whose record this version cannot read: what a relay says of it, and of those beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import UnreadableTask
from hermes_async.domain.task import Task
from hermes_async.relay.client import RelayClient
from tests.support.damage import DAMAGES, damage
from tests.support.servers import wait_until_async
from tests.unit.relay.caller import Caller
from tests.unit.relay.conftest import Station, hermes_over, new_task, token

pytestmark = pytest.mark.anyio

REFUSED = (409, "unreadable")


@pytest.fixture
async def hermes(redis_url: str) -> AsyncIterator[Hermes]:
    async with hermes_over(RedisStore(redis_url)) as hermes:
        yield hermes


@pytest.fixture
async def bad(hermes: Hermes) -> Task:
    task = await new_task(hermes, "s")
    await damage(hermes.store, task.id, DAMAGES["cut off"])
    return task


async def test_http_says_it_in_a_sentence_and_shows_the_others(
    hermes: Hermes, relay: Station, http: aiohttp.ClientSession, bad: Task
) -> None:
    good = await new_task(hermes, "s")
    call = Caller(http, relay.url, token("s"))
    path = f"/v1/tasks/{bad.id}"
    for asked in (
        ("GET", path),
        ("GET", f"{path}/result?wait=60"),
        ("POST", f"{path}/messages", {"text": "x"}),
        ("POST", f"{path}/answer", {"value": 1}),
    ):
        assert await call.refused(*asked) == REFUSED
    assert (await call("GET", path)).said["detail"].startswith("this version of hermes_async cannot read")
    listed = (await call("GET", "/v1/tasks?session=s")).said["tasks"]
    snapshot = (await call("GET", "/v1/sessions/s/snapshot")).said["tasks"]
    assert [[task["id"] for task in tasks] for tasks in (listed, snapshot)] == [[good.id], [good.id]]
    cancelled = await call("POST", f"{path}/cancel")
    assert (cancelled.status, cancelled.said["id"], cancelled.said["cancel_requested"]) == (200, bad.id, True)
    stranger = Caller(http, relay.url, token("mine"))
    for method, place in (("GET", path), ("GET", f"{path}/result"), ("POST", f"{path}/cancel")):
        assert await stranger.refused(method, place) == (404, "not_found")


async def test_a_socket_hears_its_events_and_is_told_why_it_cannot_command(
    hermes: Hermes, relay: Station, bad: Task, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay.socket(token("s")) as socket:
        assert (await socket.ask("subscribe", {"task": bad.id}))["ok"]
        await wait_until_async(
            lambda: [event["type"] for event in socket.events] == ["task.queued", "task.started"]
        )
        refused = await socket.ask("send", {"task": bad.id, "text": "x"})
        assert refused["error"]["code"] == "unreadable"
        assert await socket.ask("cancel", {"task": bad.id}) == {"ok": True, "cancelled": True}
    async with relay.socket(token("mine")) as socket:
        assert (await socket.ask("subscribe", {"task": bad.id}))["error"]["code"] == "not_found"
        assert (await socket.ask("send", {"task": bad.id, "text": "x"}))["error"]["code"] == "not_found"
    async with RelayClient(relay.url, token("s")) as client:
        with pytest.raises(UnreadableTask, match="cannot read the record"):
            await client.send(bad.id, "x")
    assert "failed" not in caplog.text
