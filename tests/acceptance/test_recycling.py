"""A worker that a task has spoiled: the task is settled, all others go on elsewhere, the process ends."""

from __future__ import annotations

import asyncio

import pytest

from hermes_async.adapters import celery_queue
from hermes_async.core.threads import MOST_STRAYS
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Lane, TaskStatus
from hermes_async.worker.recycle import EXIT_CODE
from tests.support import agents, families
from tests.support.asking import ended, told
from tests.support.site import Site, gone, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]

S = TaskStatus


async def test_a_hog_is_out_of_time_and_the_others_go_on_elsewhere(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_queue, "GRACE", 0.5)  # it travels in the message
    (first,) = await site.workers(Lane.ASYNC)
    innocent = [await site.dispatch(agents.nap_once, 60) for _ in range(5)]
    await site.running(*innocent)
    hog = await site.dispatch(agents.hog.options(timeout=0.5), 60)
    again = agents.hog.options(timeout=0.5, retry_limit=1, retry=agents.SOON)
    await site.running(hog)
    (second,) = await site.workers(Lane.ASYNC)
    assert await gone(first) == EXIT_CODE
    task = await ended(hog)
    assert task.error is not None
    assert (task.status, task.reason, task.attempt) == (S.FAILED, Reason.TIMEOUT, 1)
    assert task.error.type == "TimeLimitExceeded"
    for handle in innocent:
        task = await ended(handle)
        assert (task.status, task.output, task.losses) == (S.COMPLETED, second.pid, 0)
        assert await told(handle) == ["queued", "started", "attempt_lost", "started", "completed"]
    assert "by task hermes.hog[" in first.log

    hog = await site.dispatch(again, 60)  # whoever takes it is replaced, twice
    assert await gone(second) == EXIT_CODE
    (third,) = await site.workers(Lane.ASYNC)
    assert await gone(third) == EXIT_CODE
    task = await ended(hog)
    assert (task.status, task.reason, task.attempt) == (S.FAILED, Reason.TIMEOUT, 2)
    assert await told(hog) == ["queued", "started", "retrying", "started", "failed"]


async def test_force_ends_what_does_not_hear(site: Site) -> None:
    (first,) = await site.workers(Lane.ASYNC)
    innocent = await site.dispatch(agents.nap_once, 60)
    stubborn = await site.dispatch(agents.stubborn, 60)
    await site.running(innocent, stubborn)
    assert await stubborn.cancel(force=True)
    assert (await ended(stubborn)).status is S.CANCELLED
    (second,) = await site.workers(Lane.ASYNC)
    assert await gone(first) == EXIT_CODE
    await until_said(first, "is to be killed, and does not end")
    assert (await ended(innocent)).output == second.pid
    assert await asyncio.wait_for(await site.dispatch(agents.echo, "x"), 10) == "x"


async def test_a_worker_in_which_too_many_functions_stay_is_replaced(site: Site) -> None:
    (first,) = await site.workers(Lane.ASYNC)
    stays = families.stay_in_thread.options(timeout=0.5)
    stuck = [await site.dispatch(stays, 60) for _ in range(MOST_STRAYS)]
    for handle in stuck:
        assert (await ended(handle)).reason is Reason.TIMEOUT
    assert await gone(first) == EXIT_CODE
    await site.workers(Lane.ASYNC)
    assert await asyncio.wait_for(await site.dispatch(agents.echo, "x"), 30) == "x"
