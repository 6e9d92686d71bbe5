"""Callbacks in real processes: killed, stopped, poisoned, and yet each is committed once and in order."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.domain.events import AnyEvent, CompletedData
from hermes_async.domain.task import Lane, Task
from hermes_async.worker.callbacks import GRACE, HANGS, LATE
from tests.support.servers import Process, wait_until, wait_until_async
from tests.support.values import make_event, make_task

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance, pytest.mark.timeout(180)]

LEASE, TIMEOUT = 1.0, 2.0
AGENTS = """\
agents:
  boss: {type: conversational, subagents: [{id: echo, callbacks: {on_complete: told}}]}
  echo: {run: "tests.support.agents:echo"}
"""
HANDLERS = """\
import json, os, time

def told(result, parent):
    note(result, parent)
    if result.output == "exit":
        os._exit(1)
    if result.output == "raise":
        raise ValueError("never")
    if result.output == "hang":
        time.sleep(3600)
    time.sleep(0.3 if result.output == "calm" else 0.02)
    parent["session"].send_message(result.task_id)

async def blocking(result, parent):
    note(result, parent)
    time.sleep(3600)

def note(result, parent):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps([result.task_id, parent["attempt"], os.getpid(), time.time()]) + "\\n")
"""
#: The command line with retries in a hurry.
IN_A_HURRY = (
    "from hermes_async.domain import callback; from hermes_async.cli.main import main; "
    "callback.FIRST_DELAY = 0.05; main()"
)


class Note(NamedTuple):
    """A function was called."""

    task_id: str
    attempt: int
    pid: int
    at: float


class Office:
    """Workers that make calls, and a store on which tasks end."""

    def __init__(self, folder: Path, url: str, spawn: Callable[..., Process]) -> None:
        (folder / "agents.yaml").write_text(AGENTS)
        (folder / "hermes_callbacks").mkdir(mode=0o755)
        (folder / "hermes_callbacks/handlers.py").write_text(HANDLERS)
        self.notes_file = folder / "notes"
        self.store = RedisStore(url)
        self.ledger = self.store.ledger
        self._spawn = spawn
        self._env = {
            "HERMES_CONFIG": str(folder / "agents.yaml"),
            "HERMES_TASK_QUEUE": url,
            "HERMES_STATE_DIR": str(folder / "state"),
            "HERMES_LEASE": str(LEASE),
            "HERMES_CALLBACK_TIMEOUT": str(TIMEOUT),
            "NOTES": str(self.notes_file),
        }

    def worker(self, **env: str) -> Process:
        command = [sys.executable, "-c", IN_A_HURRY, "worker", "--lane", "callbacks"]
        return self._spawn(command, {**self._env, **env}, "caller")

    def workers(self, count: int, **env: str) -> list[Process]:
        started = [self.worker(**env) for _ in range(count)]
        for process in started:
            process.wait_for_log("callbacks: ")
        return started

    async def completed(self, session: str, output: str = "fine", name: str = "told") -> Task:
        """A task of which `name` is to be told, and that has ended."""
        task = make_task(session, options={"callbacks": {"on_complete": name}})
        await self.store.create(task, None, None)
        claimed = await self.store.claim(task.id, "w1", 60.0)
        assert claimed is not None
        await self.store.append(make_event(claimed, "task.completed", CompletedData(output=output)))
        return claimed

    async def all_completed(self, sessions: list[str], output: str = "fine") -> list[str]:
        return [
            task.id for task in await asyncio.gather(*(self.completed(each, output) for each in sessions))
        ]

    def notes(self) -> list[Note]:
        lines = self.notes_file.read_text().splitlines() if self.notes_file.exists() else []
        return [Note(*json.loads(line)) for line in lines]

    async def log(self, session: str) -> list[AnyEvent]:
        return list((await self.store.events(session, 0, 100_000)).events)

    async def waiting(self) -> int:
        return (await self.ledger.backlog()).waiting


@pytest.fixture
async def office(
    anyio_backend: str, tmp_path: Path, redis_url: str, spawn: Callable[..., Process]
) -> AsyncIterator[Office]:
    made = Office(tmp_path, redis_url, spawn)
    await made.store.enlist("w1", Lane.ASYNC, 1_000, 600.0)
    yield made
    await made.store.close()


async def torment(office: Office, workers: list[Process], chance: random.Random) -> Counter[str]:
    """Kill workers and stop them for longer than their lease, until nothing waits any more."""
    done: Counter[str] = Counter()
    while await office.waiting():
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        victim = chance.randrange(len(workers))
        if workers[victim].alive and chance.random() < 0.5:
            workers[victim].signal(signal.SIGSTOP)
            await asyncio.sleep(1.6 * LEASE)
            workers[victim].signal(signal.SIGCONT)
            done["stopped"] += 1
        elif workers[victim].alive:
            workers[victim].kill()
            done["killed"] += 1
        for index, worker in enumerate(workers):  # a poisoned one, too
            if not worker.alive:
                workers[index] = office.worker()
    return done


async def test_fifty_in_one_session_and_everything_goes_wrong(office: Office) -> None:
    outputs = ["fine"] * 50
    outputs[5], outputs[20], outputs[35] = "exit", "raise", "hang"
    workers = office.workers(4)
    await asyncio.gather(*(office.completed("chat", output) for output in outputs))
    done = await torment(office, workers, random.Random(4))
    log = await office.log("chat")
    ended = [event.task_id for event in log if event.type == "task.completed"]
    committed = [event.task_id for event in log if event.type in ("callback.succeeded", "callback.dead")]
    dead = {event.task_id for event in log if event.type == "callback.dead"}
    said = [event.data.text for event in log if event.type == "session.message"]
    assert committed == ended  # none lost, none twice, none out of order
    assert said == [task_id for task_id in ended if task_id not in dead]
    bad = {event.task_id for event in log if event.type == "task.completed" and event.data.output != "fine"}
    assert dead == bad
    assert len(await office.ledger.callbacks(dead=True)) == 3
    assert min(done["killed"], done["stopped"]) >= 2, done


async def test_one_that_ends_its_process_takes_no_other_with_it(office: Office) -> None:
    (worker,) = office.workers(1)
    calm = await office.all_completed([f"s{number}" for number in range(8)], "calm")
    poison = await office.completed("poisoned", "exit")
    while await office.waiting():
        await asyncio.sleep(0.1)
        if not worker.alive:
            worker = office.worker()
    dead = await office.ledger.callbacks(dead=True)
    assert [row.task_id for row in dead] == [poison.id]
    assert {note.task_id for note in office.notes()} == {*calm, poison.id}
    assert max(Counter(note.task_id for note in office.notes() if note.task_id in calm).values()) <= 3


async def test_other_sessions_do_not_wait_for_one_that_is_stuck(office: Office) -> None:
    office.workers(4, HERMES_CALLBACK_TIMEOUT="60")
    sessions = [f"s{number}" for number in range(200)]
    free = await slowest(office, await office.all_completed(sessions))
    stuck = await office.all_completed(["stuck"] * 3 + ["stuck too"], "hang")
    await office.all_completed(["failing"] * 3, "raise")
    await wait_until_async(lambda: {stuck[0], stuck[3]} <= {note.task_id for note in office.notes()})
    beside = await slowest(office, await office.all_completed(sessions))
    assert beside <= 1.5 * free + 0.2, (free, beside)
    assert len(set(stuck) & {note.task_id for note in office.notes()}) == 2  # the first of each session


async def slowest(office: Office, task_ids: list[str]) -> float:
    """The 95th percentile of the seconds from the end of a task to the call that tells of it."""
    await wait_until_async(lambda: set(task_ids) <= {note.task_id for note in office.notes()}, 30)
    at = {note.task_id: note.at for note in office.notes()}
    waits = []
    for task_id in task_ids:
        task = await office.store.load(task_id)
        assert task is not None
        waits.append(at[task_id] - (task.finished_at or 0.0))
    return sorted(waits)[len(waits) * 95 // 100]


async def test_one_that_blocks_its_process_is_given_up_and_the_process_replaced(office: Office) -> None:
    (worker,) = office.workers(1)
    await office.completed("chat", name="blocking")
    began = time.monotonic()
    await wait_until_async(lambda: failed_once(office), TIMEOUT + LATE + 10)
    assert await wait_until_async(lambda: not worker.alive, TIMEOUT + 2 * LATE + 10)
    assert worker.wait() == HANGS
    assert "in blocking\n" in worker.log  # it says what hangs, and where
    assert time.monotonic() - began < TIMEOUT + 2 * LATE + 10
    (row,) = await office.ledger.callbacks()
    assert row.log[0].error.message == "the call blocks its process"


async def failed_once(office: Office) -> bool:
    return any(event.type == "callback.failed" for event in await office.log("chat"))


async def test_who_is_told_to_stop_gives_back_what_does_not_end(office: Office) -> None:
    (worker,) = office.workers(1, HERMES_LEASE="60", HERMES_CALLBACK_TIMEOUT="60")
    await office.completed("chat", "hang")
    wait_until(office.notes)
    worker.signal(signal.SIGTERM)
    assert worker.wait(GRACE + 10) == 0
    (other,) = office.workers(1, HERMES_LEASE="60", HERMES_CALLBACK_TIMEOUT="60")
    wait_until(lambda: len(office.notes()) == 2)  # at once, and it was no failed try
    assert [note.attempt for note in office.notes()] == [1, 1]
    other.signal(signal.SIGTERM)
    other.wait_for_log("told to stop")
    other.signal(signal.SIGTERM)  # the second one is not patient
    assert other.wait(GRACE - 3) != 0
