"""Callers are killed and stopped at any moment: nothing is lost, committed twice or out of order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from hermes_async.adapters.redis_store import RedisStore
from tests.contract.conftest import closing
from tests.support.caller import LEASE
from tests.support.servers import Process
from tests.support.values import make_event, make_task

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]
SESSIONS, ROWS, CALLERS = 20, 60, 4


class Crew:
    """Processes that call, and what they have said."""

    def __init__(self, start: Callable[[int], Process], size: int) -> None:
        self._start = start
        self.working = [start(number) for number in range(size)]
        self._all = list(self.working)

    def said(self, what: str) -> int:
        return sum(process.log.count(what) for process in self._all)

    async def suffer(self, victim: int, *, kill: bool) -> None:
        """One is away for longer than its claims last, and comes back: as itself, or as another."""
        process = self.working[victim]
        process.wait_for_log("begins")
        if kill:
            process.kill()
        else:
            process.signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE * 1.5)
        if kill:
            self.working[victim] = self._start(len(self._all))
            self._all.append(self.working[victim])
        else:
            process.signal(signal.SIGCONT)


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


async def waiting(store: RedisStore) -> int:
    return (await store.ledger.backlog()).waiting


@pytest.mark.timeout(180)
async def test_callers_that_are_killed_and_stopped_lose_double_and_disorder_nothing(
    redis_url: str, spawn: Callable[..., Process]
) -> None:
    seed = int(os.environ.get("HERMES_TEST_SEED", "0")) or random.randrange(10**6)
    chance = random.Random(seed)

    def start(number: int) -> Process:
        args = [sys.executable, "-m", "tests.support.caller", redis_url, f"{seed}-{number}"]
        return spawn(args, name=f"caller-{number}")

    async with closing(RedisStore(redis_url)) as store:
        names = [f"s{number}" for number in range(SESSIONS)]
        expected = dict(zip(names, await asyncio.gather(*(filed(store, n) for n in names)), strict=True))
        crew, faults = Crew(start, CALLERS), 0
        while await waiting(store):
            await crew.suffer(chance.randrange(CALLERS), kill=faults % 2 == 1)
            faults += 1
        assert crew.said("taken over"), f"seed {seed}: {faults} faults and no claim was lost"
        for name in names:
            log = (await store.events(name, 0, 10_000)).events
            told = [event.id.rpartition(":")[0] for event in log if event.type == "session.message"]
            ends = [event.id for event in log if event.type == "callback.succeeded"]
            assert told == expected[name], f"seed {seed}: lost, doubled or out of order in {name}"
            assert len(ends) == ROWS
            assert max(Counter(event.id for event in log).values()) == 1
