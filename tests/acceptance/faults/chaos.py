"""A run: parents work while the nemesis torments, then everything comes to rest and is judged."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from tests.acceptance.faults.agents import family, narrow, sync_work, work
from tests.acceptance.faults.checker import Kind, Violation, counts, judge, recoveries, returns
from tests.acceptance.faults.evidence import Evidence, collect, leftovers
from tests.acceptance.faults.nemesis import schedule, torment
from tests.acceptance.faults.stage import PATIENCE, Stage
from tests.support.servers import wait_until

#: How many tasks of an agent a session may run at once.
LIMITS: Mapping[str, int] = {
    agent.name: agent.spec.concurrency_limit for agent in (narrow,) if agent.spec.concurrency_limit
}
#: The agents whose ends callbacks tell of.
TELLING = [agent.name for agent in (work, sync_work, family) if agent.spec.callbacks.on_complete]
WORKERS = ("async-1", "async-2", "process-1", "callbacks-1", "callbacks-2")
PARENTS = ("parent-1", "parent-2")


@dataclass
class Report:
    """What came of a run: how much was done and broken, and what must be zero."""

    seed: int
    tasks: Mapping[str, int]
    faults: Mapping[str, int]
    violations: list[Violation]
    #: Seconds until a lost attempt had a successor, and until every worker was at work again.
    recoveries: list[float]
    returns: list[float]

    @property
    def counts(self) -> Mapping[Kind, int]:
        return counts(self.violations)


def run(folder: Path, seed: int, seconds: float, say: Callable[[str], None] = lambda _: None) -> Report:
    """Play a schedule on a stage of its own; the folder keeps the ledger and every log."""
    steps = schedule(seed, seconds)
    with Stage(folder, seed=seed).open() as stage:
        stage.start(*WORKERS, "relay")
        stage.start(*PARENTS)
        _note_memory(stage)
        torment(stage, steps, say)
        say("waiting for everything to end")
        for name in PARENTS:
            stage.processes[name].signal(signal.SIGUSR1)
        _rest(stage)
        _note_memory(stage)
        evidence = asyncio.run(collect(stage.server.url, list(stage.ledger.read())))
        evidence.limits, evidence.telling, evidence.leftovers = LIMITS, TELLING, _emptied(stage)
        return _report(seed, evidence)


def _report(seed: int, evidence: Evidence) -> Report:
    faults = Counter(line.name for line in evidence.told("fault"))
    tasks = Counter(f"{record.status} {record.reason or ''}".strip() for record in evidence.records.values())
    return Report(seed, tasks, faults, judge(evidence), recoveries(evidence), returns(evidence))


def _note_memory(stage: Stage) -> None:
    for name, size in stage.memory().items():
        stage.ledger.write("memory", name=name, of=stage.processes[name].pid, bytes=size)


def _rest(stage: Stage) -> None:
    """Wait until every task has ended and every parent knows; what has not by then is for the judge."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.5)
        stage.revive()
        if _is_at_rest(stage):
            return


def _is_at_rest(stage: Stage) -> bool:
    """Whether the parents have been answered, and seen and acknowledged all that was logged."""
    tasks, ended = set(), set()
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for line in stage.ledger.read():
        if line.what == "accepted":
            tasks.add(line.task)
        elif line.what == "delivered" and line.type in TERMINAL_TYPES:
            ended.add(line.task)
        elif line.what == "seen":
            seen[line.session, line.through] = line.seq
    return tasks <= ended and _everything_is_told(stage) and _everything_is_seen(stage, seen)


def _everything_is_told(stage: Stage) -> bool:
    with stage.admin() as client:
        return not client.zcard(f"{Keys().ledger}waiting")


def _everything_is_seen(stage: Stage, seen: Mapping[tuple[str, str], int]) -> bool:
    with stage.admin() as client:
        for key in client.keys("hermes:{p??}:session:*"):
            session = key.rpartition(":")[2]
            last = int(client.hget(key, "seq") or 0)
            if {seen[session, "feed"], seen[session, "relay"]} != {last}:
                return False
            if client.xlen(key.replace(":session:", ":inbox:")):
                return False
    return True


def _emptied(stage: Stage) -> list[str]:
    """Stop everything and return what is left."""
    found = [f"{name} does not stop" for name in (*stage.stop(*PARENTS, "relay"), *stage.stop(*WORKERS))]
    try:
        wait_until(lambda: not stage.sockets(), 5.0)
    except AssertionError:
        found += [f"a connection of {each['name'] or each['addr']}" for each in stage.sockets()]
    with stage.admin() as client:
        return found + asyncio.run(leftovers(stage.server.url, client))
