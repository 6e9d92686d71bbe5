"""A thousand tasks end within a second for one parent, while everything that carries the news is killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient
from hermes_async.relay.secret import relay_secret
from hermes_async.settings import Settings
from tests.acceptance.faults.ledger import Line
from tests.acceptance.faults.stage import Stage
from tests.support.servers import wait_until_async

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(180)]

TASKS = 1_000
#: Seconds for all to begin, and for all to be processed once they may end.
PATIENCE = 60.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, slots=TASKS).open() as stage:
        stage.start("async-1", "async-2", "relay", "drain-1")
        yield stage


async def test_a_thousand_ends_are_processed_once_whatever_is_killed(stage: Stage) -> None:
    async with connect(stage.settings) as hermes:
        session = hermes.session("wave-1")
        numbers = await _dispatched(session)
        await wait_until_async(lambda: _running(stage, session) == TASKS, PATIENCE)
        heard = asyncio.create_task(_heard_over_relay(stage.settings, session.id))
        sign = stage.folder / "sign.draft"
        sign.write_text(str(time.time() + 0.2))
        sign.rename(stage.folder / "sign")  # whole or not at all: a thousand tasks look for it
        await _havoc(stage)
        await wait_until_async(lambda: len(_told(stage, "processed")) >= TASKS, PATIENCE)
        await wait_until_async(lambda: _is_empty(session), PATIENCE)
        log = await _log(hermes, session.id)
        over_relay = await asyncio.wait_for(heard, PATIENCE)

    processed, repeated = _told(stage, "processed"), _told(stage, "repeated")
    assert Counter(line.task for line in processed) == dict.fromkeys(numbers, 1)
    for line in processed:
        failed = numbers[line.task] % 5 == 0
        story = [event for event in log if event.task_id == line.task]
        assert line.type == ("task.failed" if failed else "task.completed"), story
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    assert over_relay == log
    ends = [event for event in log if event.type in TERMINAL_TYPES]
    assert {(event.id, event.seq) for event in ends} == {(line.id, line.seq) for line in processed}
    _print(ends, processed, repeated, log)


async def _dispatched(session: Session) -> dict[str, int]:
    """The tasks, each with its number."""
    handles = await session.dispatch_many("wave", [{"number": number} for number in range(TASKS)])
    return {handle.id: number for number, handle in enumerate(handles)}


def _running(stage: Stage, session: Session) -> int:
    with stage.admin() as client:
        return int(client.zcard(f"{Keys().of_session(session.id)}by-status:running"))


async def _havoc(stage: Stage) -> None:
    """Kill a worker, the relay, Redis, and then the parent while it drains; start them again."""
    await wait_until_async(lambda: len(_told(stage, "processed")) >= 100, PATIENCE)
    for name in ("async-1", "relay"):
        await asyncio.to_thread(stage.kill, name)
    stage.server.kill()
    stage.server.start()
    known = len(_told(stage, "processed"))
    assert known < TASKS, "it was over before anything broke"
    await wait_until_async(lambda: len(_told(stage, "processed")) >= known + 100, PATIENCE, every=0.001)
    await asyncio.to_thread(stage.kill, "drain-1")
    assert len(_told(stage, "processed")) < TASKS, "the parent had done everything before it was killed"
    await asyncio.to_thread(stage.start, "async-3", "relay", "drain-1")


def _told(stage: Stage, what: str) -> list[Line]:
    return [line for line in stage.ledger.read() if line.what == what]


async def _is_empty(session: Session) -> bool:
    return await session.unread() == 0


async def _log(hermes: Hermes, session_id: str) -> list[AnyEvent]:
    return list((await hermes.store.events(session_id, 0, 100_000)).events)


async def _heard_over_relay(settings: Settings, session_id: str) -> list[AnyEvent]:
    """What a parent hears that has no Redis, up to the last of all ends."""
    token = mint(relay_secret(settings), sub="parent", sessions=[session_id], ttl=3600)
    events: list[AnyEvent] = []
    ends = 0
    async with RelayClient(settings.relay_url, token) as client:
        async for event in client.follow(session=session_id):
            assert not isinstance(event, Gap)
            events.append(event)
            ends += event.type in TERMINAL_TYPES
            if ends == TASKS:
                break
    return events


def _print(ends: list[AnyEvent], *told: Any) -> None:
    processed, repeated, log = told
    attempts = Counter(event.attempt for event in ends)
    print(f"\n{TASKS} ends: {Counter(event.type for event in ends)}, by attempt: {attempts}")
    print(f"finished within {max(e.time for e in ends) - min(e.time for e in ends):.2f} s, faults included")
    print(f"processed {len(processed)}, of which distinct {len({line.id for line in processed})}")
    print(f"handed over again after the kill of the parent: {len(repeated)}")
    print(f"events in the log {len(log)}, all of them heard over the relay in order")
