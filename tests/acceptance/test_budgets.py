"""Budgets over real workers of both lanes: the sums are right and the limits hold, whoever is killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane, Task, TaskStatus
from hermes_async.domain.usage import NO_USAGE, Usage
from tests.support import spenders
from tests.support.asking import ended
from tests.support.servers import wait_until_async
from tests.support.site import LEASE, Site
from tests.support.spenders import CENT, INTO, OUT

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]
S = TaskStatus
#: Spenders of each lane; those of the process lane run two at once.
EACH = 10


async def spent_by(site: Site, root: Any) -> Usage:
    return (await root.task()).tree_usage or NO_USAGE


async def test_a_tree_over_two_workers_keeps_its_budget_although_one_is_killed(
    site: Site, tmp_path: Path
) -> None:
    book = tmp_path / "book"
    _, doomed = await site.workers(Lane.ASYNC, Lane.PROCESS)
    root = await site.dispatch(spenders.patron.options(limits={"cost_usd": 1.0}), str(book), 0.7, EACH)
    await wait_until_async(lambda: _has_spent(site, root, 15), 30)
    doomed.kill()
    await site.workers(Lane.PROCESS)
    assert (await ended(root, 60)).output == "content"

    tasks = [task for task in await site.hermes.tasks(limit=100) if task.id != root.id]
    assert len(tasks) == 2 * EACH
    assert {(task.status, task.reason) for task in tasks} == {(S.FAILED, Reason.BUDGET_EXCEEDED)}
    told = f"the budget of task {root.id} is spent: "
    assert all(task.error and task.error.message.startswith(told) for task in tasks)
    again = [task for task in tasks if task.attempt > 1]
    assert 1 <= len(again) <= 2

    made = Counter(book.read_text().split())
    for task in tasks:
        lost = made[task.id] - calls_of(task)
        assert 0 <= lost <= task.attempt - 1, "only what nobody lived to tell is not counted"
        assert bool(task.partials) == bool(made[task.id])
    assert any(calls_of(task) for task in again)
    tree = await spent_by(site, root)
    whole = sum((task.usage or NO_USAGE for task in tasks), Usage(requests=1))
    assert tree == whole, "what the tree has spent is what its tasks have"
    assert 100 <= sum(map(calls_of, tasks)) <= 100 + EACH + 2, "no more than one call beyond for each"
    await _nothing_is_left(site)


async def test_the_next_attempt_of_a_root_has_what_the_tree_of_the_last_has_left(
    site: Site, tmp_path: Path
) -> None:
    doomed, _ = await site.workers(Lane.ASYNC, Lane.PROCESS)
    limited = spenders.patron.options(limits={"cost_usd": 0.5})
    root = await site.dispatch(limited, str(tmp_path / "book"), 0.5, EACH)
    await wait_until_async(lambda: _has_spent(site, root, 15), 30)
    doomed.kill()
    await site.workers(Lane.ASYNC)
    ending = await ended(root, 60)
    assert (ending.attempt, ending.output, ending.usage) == (2, "content", Usage(requests=2))

    async def tasks_below() -> list[Task]:
        return [task for task in await site.hermes.tasks(limit=100) if task.id != root.id]

    async def all_have_ended() -> bool:
        return {task.status for task in await tasks_below()} <= {S.FAILED, S.CANCELLED}

    await wait_until_async(all_have_ended)
    tasks = await tasks_below()
    assert len(tasks) == 4 * EACH
    tree = await spent_by(site, root)
    assert tree == sum((task.usage or NO_USAGE for task in tasks), Usage(requests=2))
    assert tree.cost_usd is not None
    assert 0.5 <= tree.cost_usd <= 0.5 + (EACH + 2) * CENT
    await _nothing_is_left(site)


async def _has_spent(site: Site, root: Any, calls: int) -> bool:
    return (await spent_by(site, root)).input_tokens >= calls * INTO


def calls_of(task: Task) -> int:
    """How many calls are counted, in all their parts."""
    usage = task.usage or NO_USAGE
    calls = usage.input_tokens // INTO
    assert (usage.input_tokens, usage.output_tokens) == (calls * INTO, calls * OUT)
    assert (usage.cost_usd or 0.0) == round(calls * CENT, 2)
    assert 0 <= usage.requests - calls <= task.attempt
    return calls


async def _nothing_is_left(site: Site) -> None:
    """But for the session, to which this process listens."""
    await site.hermes.janitor.prune(0.0)
    keys = await site.hermes.store._reads.read("KEYS", "*")  # type: ignore[attr-defined]
    kinds = {key.split(":")[2] for key in keys if ":{p" in key}
    assert kinds <= {"session", "events", "inbox", "sessions"}


async def test_the_seconds_of_a_tree_end_it_in_both_lanes(site: Site) -> None:
    await site.workers(*Lane)
    root = await site.dispatch(spenders.slow_patron.options(limits={"seconds": 1.5}), 60.0)
    task = await ended(root, 1.5 + LEASE + 10)
    assert (task.status, task.reason, task.attempt) == (S.FAILED, Reason.BUDGET_EXCEEDED, 1)
    assert task.partials == {"output": "so far"}
    assert task.began_at is not None
    assert task.finished_at is not None
    assert 1.4 <= task.finished_at - task.began_at <= 5.0
    [child] = [each for each in await site.hermes.tasks() if each.id != root.id]
    await wait_until_async(lambda: _is_cancelled(site, child))


async def _is_cancelled(site: Site, task: Task) -> bool:
    found = await site.hermes.store.load(task.id)
    return found is not None and found.status is S.CANCELLED


async def test_fifty_who_ask_at_once_are_granted_what_there_is(site: Site, tmp_path: Path) -> None:
    book = tmp_path / "book"
    await site.workers(Lane.ASYNC)
    limits = {"requests": 121, "tool_calls": 0}  # one is the root's own
    root = await site.dispatch(spenders.crowd.options(limits=limits), str(book), 0.02, 50)
    assert (await ended(root, 30)).output == "content"
    used = await spent_by(site, root)
    made = len(book.read_text().split())
    assert (used.requests, used.input_tokens) == (121, made * INTO)
    assert made == 120


async def test_fifty_who_spend_at_once_exceed_it_by_a_call_each_at_most(site: Site, tmp_path: Path) -> None:
    await site.workers(Lane.ASYNC)
    root = await site.dispatch(
        spenders.crowd.options(limits={"cost_usd": 1.0}), str(tmp_path / "book"), 0.02, 50
    )
    assert (await ended(root, 30)).output == "content"
    used = await spent_by(site, root)
    assert used.cost_usd is not None
    assert 1.0 <= used.cost_usd <= 1.0 + 50 * CENT
    assert used.requests == 1 + used.input_tokens // INTO, "who was in a call has told of it"
