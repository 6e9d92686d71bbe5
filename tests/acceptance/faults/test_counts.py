"""The metrics count what the logs say, whoever is killed, and whenever."""

from __future__ import annotations

from collections import Counter

import pytest

from hermes_async.adapters.redis_store.store import CLAIM
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.core.metrics import Metrics, counted_as
from hermes_async.domain.events import AnyEvent
from tests.acceptance.faults.stage import Stage
from tests.support.asking import ended
from tests.support.servers import wait_until_async

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(90)]
ENDS = ("task.completed", "task.failed", "task.cancelled", "task.rejected")


async def everything(hermes: Hermes) -> list[AnyEvent]:
    """Every event of every session."""
    sessions = {task.session_id for task in await hermes.store.tasks(limit=1000)}
    pages = [await hermes.store.events(session_id, 0, 10_000) for session_id in sorted(sessions)]
    return [event for page in pages for event in page.events]


async def balanced(hermes: Hermes) -> Metrics:
    """The metrics, which agree with the logs and with each other."""
    tasks = await hermes.store.tasks(limit=1000)
    for task in tasks:
        await ended(await hermes.handle(task.id))
    tasks = await hermes.store.tasks(limit=1000)
    logged = Counter((counted_as(event), event.agent or "") for event in await everything(hermes))
    found = await hermes.store.metrics()
    shown = {
        (f"{what.type}/{what.detail}" if what.detail else what.type, what.agent): number
        for what, number in found.counts.items()
    }
    assert shown == logged
    assert found.total(*ENDS) == found.total("task.queued") == len(tasks)
    assert found.open == {"queued": 0, "running": 0, "input_required": 0}
    begun = [task for task in tasks if task.started_at is not None]  # a child may have been stopped before
    assert sum(times.count for times in found.waits.values()) == len(begun)
    assert sum(times.count for times in found.runs.values()) == found.total("task.started")
    return found


async def dispatched(hermes: Hermes, name: str, agent: str = "work") -> TaskHandle[str]:
    handle: TaskHandle[str] = await hermes.session(name).dispatch(agent, name)
    return handle


async def killed_when(stage: Stage, hermes: Hermes, words: bytes, *, answered: bool) -> None:
    """Kill the worker before or after what has these words in it has been done."""
    with stage.proxy.trap(words, answered=answered) as trap:
        handle = await dispatched(hermes, f"{answered}")
        await wait_until_async(lambda: trap.is_sprung)
        stage.kill("async-1")
    stage.start("async-1")
    await ended(handle)


async def test_counts_after_kills_between_claim_and_settle(stage: Stage, hermes: Hermes) -> None:
    for answered in (False, True):
        await killed_when(stage, hermes, CLAIM.sha.encode(), answered=answered)
        await killed_when(stage, hermes, b"task.completed", answered=answered)
    found = await balanced(hermes)
    assert found.total("task.attempt_lost") == 2  # at its claim and at its end, when it was not yet settled
    stage.have("async-1", "async-2")
    await ended(await hermes.session("family").dispatch("doomed", "family", "child"))
    found = await balanced(hermes)
    assert found.total("task.attempt_lost") == 3
    while await hermes.store.prune(0.0):
        pass
    assert (await hermes.store.metrics()).counts == found.counts
