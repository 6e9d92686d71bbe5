"""Callers are killed and stopped at any moment: nothing is lost, committed twice or out of order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from hermes_async.adapters.redis_store import RedisStore
from tests.contract.conftest import closing
from tests.support.caller import LEASE
from tests.support.servers import Process, wait_until_async
from tests.support.values import make_event, make_task

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]
SESSIONS, ROWS, CALLERS, FAULTS = 20, 60, 4, 12


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def filed(store: RedisStore, session_id: str) -> list[str]:
    """File a row for each of many tasks; return the rows in their order."""
    rows = []
    for _ in range(ROWS):
        task = make_task(session_id, options={"callbacks": {"on_complete": "done"}})
        await store.create(task, None, None)
        claimed = await store.claim(task.id, "w1", 60.0)
        assert claimed is not None
        assert await store.append(make_event(claimed, "task.completed"))
        rows.append(f"{task.id}:on_complete")
    return rows


@pytest.mark.timeout(180)
async def test_callers_that_are_killed_and_stopped_lose_double_and_disorder_nothing(
    redis_url: str, spawn: Callable[..., Process]
) -> None:
    seed = int(os.environ.get("HERMES_TEST_SEED", "0")) or random.randrange(10**6)
    chance = random.Random(seed)
    started: list[Process] = []

    def start(number: int) -> Process:
        args = [sys.executable, "-m", "tests.support.caller", redis_url, f"{seed}-{number}"]
        started.append(spawn(args, name=f"caller-{number}"))
        return started[-1]

    async with closing(RedisStore(redis_url)) as store:
        names = [f"s{number}" for number in range(SESSIONS)]
        expected = dict(zip(names, await asyncio.gather(*(filed(store, n) for n in names)), strict=True))
        callers = [start(number) for number in range(CALLERS)]
        for number in range(FAULTS):
            before = (await store.ledger.backlog()).waiting
            await wait_until_async(lambda: _moves(store, before), 30.0)  # noqa: B023
            victim = chance.randrange(CALLERS)
            if chance.random() < 0.5:
                callers[victim].kill()
                callers[victim] = start(CALLERS + number)
            else:
                callers[victim].signal(signal.SIGSTOP)
                await asyncio.sleep(LEASE * 1.5)  # longer than its claims last
                callers[victim].signal(signal.SIGCONT)
        await wait_until_async(lambda: _is_empty(store), 90.0)
        logs = "".join(process.log for process in started)
        assert min(logs.count("taken over"), logs.count("refused")), f"seed {seed}: nothing was tried"
        for name in names:
            log = (await store.events(name, 0, 10_000)).events
            told = [event.id.rpartition(":")[0] for event in log if event.type == "session.message"]
            ends = [event.id for event in log if event.type == "callback.succeeded"]
            assert told == expected[name], f"seed {seed}: lost, doubled or out of order in {name}"
            assert len(ends) == ROWS
            assert max(Counter(event.id for event in log).values()) == 1


async def _moves(store: RedisStore, before: int) -> bool:
    waiting = (await store.ledger.backlog()).waiting
    return waiting < before or waiting == 0


async def _is_empty(store: RedisStore) -> Any:
    return (await store.ledger.backlog()).waiting == 0
