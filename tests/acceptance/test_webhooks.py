"""Webhooks end to end: real workers, a receiver that is away, kills in the middle, and no secret anywhere."""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook

from hermes_async.domain.callback import Callback
from hermes_async.domain.task import Lane
from tests.support.receiver import Receiver, hang, status
from tests.support.servers import Process, wait_until_async
from tests.support.site import Site, site_over, until_said

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance, pytest.mark.timeout(120)]

SECRET, OLD = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"n", b"o"))
PLAIN = "plain text of a secret, long enough"
#: Fewer than close an endpoint.
COUNT = 15

AGENTS = """
agents:
  boss:
    type: conversational
    subagents:
      - id: echo
        webhook: {url: "http://PLACE/hook?key=hush-hush", secret: [SECRET, OLD]}
      - id: fail
        webhook: {url: "http://PLACE/failures", secret: "PLAIN"}
      - id: flaky
        webhook: {url: "http://10.0.0.1/inside"}
  echo: {run: "tests.support.agents:echo"}
  fail: {run: "tests.support.agents:fail"}
  flaky: {run: "tests.support.agents:flaky"}
"""


@pytest.fixture
async def receiver(anyio_backend: str) -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def site(
    redis_url: str, tmp_path: Path, spawn: Callable[..., Process], receiver: Receiver
) -> AsyncIterator[Site]:
    said = AGENTS.replace("PLACE", receiver.place)
    for name, secret in (("SECRET", SECRET), ("OLD", OLD), ("PLAIN", PLAIN)):
        said = said.replace(name, secret)
    async with site_over(redis_url, tmp_path, spawn, config=said) as site:
        site.session = site.hermes.session("chat", parent="boss")
        yield site


async def caller(site: Site, spawn: Callable[..., Process], receiver: Receiver) -> Process:
    """A callbacks worker."""
    command = [sys.executable, "-m", "hermes_async.cli", "worker", "--lane", "callbacks"]
    process = spawn(command, {**site.env, "HERMES_WEBHOOK_ALLOW": receiver.place}, "callbacks")
    await until_said(process, "callbacks: ")
    return process


async def rows(site: Site, *, dead: bool | None = None) -> list[Callback]:
    return list(await site.hermes.store.ledger.callbacks(dead=dead, limit=500))


async def all_gone(site: Site) -> None:
    async def is_empty() -> bool:
        return not await rows(site)

    await wait_until_async(is_empty, 60.0)


def kept_by(url: str) -> str:
    """Everything that a Redis holds, as text."""
    client = redis.Redis.from_url(url, encoding_errors="replace", decode_responses=True)
    readers: dict[str, Callable[[str], Any]] = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1),
        "stream": client.xrange,
    }
    with client:
        return " ".join(f"{key} {readers[str(client.type(key))](key)}" for key in client.scan_iter())


def hours_pass(url: str) -> None:
    """All that waits is due."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for key in client.scan_iter("*ready:webhooks"):
            client.zadd(key, dict.fromkeys(client.zrange(key, 0, -1), 0), xx=True)


async def test_after_an_outage_every_end_is_delivered(
    site: Site, spawn: Callable[..., Process], receiver: Receiver, redis_url: str
) -> None:
    await site.workers(Lane.ASYNC)
    callers = [await caller(site, spawn, receiver) for _ in range(2)]
    await receiver.close()
    handles = [await site.session.dispatch("echo", text=f"number {number}") for number in range(COUNT)]
    failing = await site.session.dispatch("fail")

    async def all_failed() -> bool:
        found = await rows(site)
        return len(found) == COUNT + 1 and all(row.failures for row in found)

    await wait_until_async(all_failed, 30.0)
    assert {row.log[-1].error.type for row in await rows(site)} == {"ClientConnectorError"}
    kept = kept_by(redis_url)
    receiver.then(hang, hang)
    await receiver.open()
    hours_pass(redis_url)
    await wait_until_async(lambda: len(receiver.posts) > COUNT // 2, 30.0)
    for each in callers:  # two posts have arrived, and are not answered yet
        each.signal(signal.SIGKILL)
    callers.append(await caller(site, spawn, receiver))
    await all_gone(site)

    ids = {post.headers["webhook-id"] for post in receiver.posts}
    assert ids == {f"{handle.id}:webhook" for handle in [*handles, failing]}
    assert len(receiver.posts) >= COUNT + 1 + 2
    for post in receiver.posts:
        plain = post.line.split()[1] == "/failures"
        for secret in [PLAIN.encode()] if plain else [SECRET, OLD]:
            told = Webhook(secret).verify(post.body, post.headers)
        assert told["type"] == ("task.failed" if plain else "task.completed")
        assert told["data"]["parent"] == "boss"
    assert {post.line for post in receiver.posts} == {
        "POST /hook?key=hush-hush HTTP/1.1",
        "POST /failures HTTP/1.1",
    }
    events = [event async for event in until_all_told(site, COUNT + 1)]
    assert "callback.failed" in {event["type"] for event in events}
    logs = "".join(each.log for each in callers)
    seen = kept + kept_by(redis_url) + logs + json.dumps(events)
    assert not [secret for secret in (SECRET, OLD, PLAIN, SECRET[6:], "hush-hush") if secret in seen]


async def until_all_told(site: Site, count: int) -> AsyncIterator[dict[str, Any]]:
    """The session's events, until so many callbacks have succeeded."""
    async for event in site.session.events():
        yield event.model_dump(mode="json")
        count -= event.type == "callback.succeeded"
        if not count:
            return


async def test_what_is_dead_says_why_and_goes_out_again_under_the_same_id(
    site: Site, spawn: Callable[..., Process], receiver: Receiver
) -> None:
    await site.workers(Lane.ASYNC)
    await caller(site, spawn, receiver)
    receiver.then(status(410))
    unwanted = await site.session.dispatch("echo", text="a")
    inside = await site.session.dispatch("flaky", failures=0)

    async def both_are_dead() -> bool:
        return len(await rows(site, dead=True)) == 2

    await wait_until_async(both_are_dead, 30.0)
    found = {row.task_id: row for row in await rows(site)}
    assert found[unwanted.id].log[-1].error.type == "HTTP 410"
    assert "HERMES_WEBHOOK_ALLOW" in found[inside.id].log[-1].error.message
    assert await site.hermes.store.ledger.redeliver(found[unwanted.id].id)
    await wait_until_async(lambda: len(receiver.posts) == 2, 30.0)
    first, second = receiver.posts
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"{unwanted.id}:webhook"
    Webhook(SECRET).verify(second.body, second.headers)
