"""Who waits for a task that nobody can take is told so, once, and without asking for what runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hermes_async import TaskContext, TaskHandle, subagent
from hermes_async.adapters.memory import MemoryQueue, MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core import lookout
from hermes_async.core.hermes import Hermes
from hermes_async.core.ports import Store, Traffic
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.task import Lane
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def swift(ctx: TaskContext) -> str:
    return "done"


@subagent
def heavy(ctx: TaskContext) -> str:
    return "done"


class Counted:
    """How often it was looked for workers."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        self.fault: Exception | None = None
        self._traffic = store.traffic
        monkeypatch.setattr(store, "traffic", self.traffic)

    async def traffic(self) -> Traffic:
        self.looks += 1
        if self.fault:
            raise self.fault
        return await self._traffic()


@pytest.fixture(params=["memory", "redis"])
async def hermes(request: pytest.FixtureRequest) -> AsyncIterator[Hermes]:
    store: Store = MemoryStore()
    if request.param == "redis":
        store = RedisStore(request.getfixturevalue("redis_url"))
    made = Hermes(Registry(AgentsConfig(), [swift, heavy]), store, MemoryQueue())
    yield made
    await made.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("hermes-lookout")]


@pytest.fixture
def looks(hermes: Hermes, monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(lookout, "LOOK_AFTER", 0.05)
    return Counted(hermes.store, monkeypatch)


async def follow(handle: TaskHandle[Any]) -> None:
    async for _ in handle.events():
        pass


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "hermes.handle"]


@pytest.mark.parametrize("wait", [TaskHandle.result, TaskHandle.ended, follow])
async def test_who_waits_for_nobody_is_told_once_for_each_lane(
    hermes: Hermes, looks: Counted, caplog: pytest.LogCaptureFixture, wait: Any
) -> None:
    session = hermes.session("chat")
    waits = []
    for agent, lane in ((swift, "async"), (heavy, "process")):
        handles = [await session.dispatch(agent) for _ in range(3)]
        waits += [asyncio.ensure_future(wait(handle)) for handle in handles]
        await wait_until_async(lambda lane=lane: any(f"the {lane} lane" in said for said in warnings(caplog)))
    waits.append(asyncio.ensure_future(wait(await session.dispatch(swift))))
    await asyncio.sleep(4 * lookout.LOOK_AFTER)
    [first, second] = warnings(caplog)
    assert first.endswith("start one with `hermes-async up` or `hermes-async worker --lane async`")
    assert first.startswith("task t") and "waits: no worker of the process lane is there" in second
    assert looks.looks == 2
    for each in waits:
        each.cancel()
    await asyncio.wait(waits)


async def test_nothing_is_asked_for_what_runs_or_ends_soon(
    hermes: Hermes, looks: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    await hermes.store.enlist("w1", Lane.ASYNC, 10, 3600.0)
    session = hermes.session("chat")
    soon, runs = await session.dispatch(swift), await session.dispatch(swift)
    runner = hermes.runner("w1", 60.0)
    waiting = asyncio.ensure_future(soon.result())
    await runner.run(soon.id)
    assert await waiting == "done"
    assert await hermes.store.claim(runs.id, "w1", 60.0)
    waiting = asyncio.ensure_future(runs.result())
    await asyncio.sleep(3 * lookout.LOOK_AFTER)
    assert (looks.looks, warnings(caplog)) == (0, [])
    waiting.cancel()


async def test_who_waits_in_line_while_others_are_served_is_told_nothing(
    hermes: Hermes, looks: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    await hermes.store.enlist("w1", Lane.ASYNC, 10, 3600.0)
    handles = [await hermes.session("chat").dispatch(swift) for _ in range(20)]
    waits = [asyncio.ensure_future(handle.result()) for handle in handles]
    await wait_until_async(lambda: looks.looks)
    assert (looks.looks, warnings(caplog)) == (1, [])
    for each in waits:
        each.cancel()
    await asyncio.wait(waits)


async def test_a_store_that_is_away_is_no_matter_of_the_lookout(
    hermes: Hermes, looks: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    looks.fault = StoreUnavailable("away")
    waiting = asyncio.ensure_future((await hermes.session("chat").dispatch(swift)).result())
    with caplog.at_level(logging.DEBUG):
        await wait_until_async(lambda: looks.looks)
        await asyncio.sleep(0)
    assert warnings(caplog) == []
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    waiting.cancel()


async def test_what_was_told_already_is_not_logged_too(
    hermes: Hermes, looks: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await hermes.session("chat").dispatch(swift)
    assert await hermes.feed.lookout.finds_nobody(handle.id)
    waiting = asyncio.ensure_future(handle.result())
    await asyncio.sleep(3 * lookout.LOOK_AFTER)
    assert (looks.looks, warnings(caplog)) == (1, [])
    waiting.cancel()
