"""The counts: as true as the log, over memory and over Redis."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hermes_async.adapters import redis_store
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.metrics import EDGES, Counted, Histogram, Metrics, counted_as
from hermes_async.core.ports import Store
from hermes_async.domain.events import AttemptLostData, FailedData
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.question import Question
from hermes_async.domain.task import Task
from hermes_async.domain.usage import Usage
from tests.contract.conftest import closing
from tests.support.servers import wait_until_async
from tests.support.values import falling, make_event, make_task

pytestmark = pytest.mark.anyio
LEASE = 60.0
ENDS = ("task.completed", "task.failed", "task.cancelled")
OOPS = ErrorInfo(type="ValueError", message="no")


async def born(store: Store, **how: Any) -> Task:
    return await store.create(make_task(**how), None, None)


async def running(store: Store, **how: Any) -> Task:
    return await claimed(store, (await born(store, **how)).id)


async def claimed(store: Store, task_id: str) -> Task:
    task = await store.claim(task_id, "w1", LEASE)
    assert task is not None
    return task


async def ended(store: Store, how: str = "task.completed", **options: Any) -> Task:
    task = await running(store, **options)
    assert await store.append(make_event(task, how))
    return task


def tally(found: Metrics) -> dict[str, int]:
    """The counts by type, and by agent where that is another than `echo`."""
    shown = {}
    for (type_, detail, agent), number in found.counts.items():
        name = f"{type_}/{detail}" if detail else type_
        shown[name if agent == "echo" else f"{name} {agent}"] = number
    return shown


def numbers(found: dict[str, Histogram]) -> dict[str, int]:
    return {agent: histogram.count for agent, histogram in found.items()}


# -- what is counted -------------------------------------------------------------------------------------
async def test_nothing_is_counted_at_first(store: Store) -> None:
    found = await store.metrics()
    assert (found.counts, found.waits, found.runs, found.oldest) == ({}, {}, {}, None)
    assert found.open == {"queued": 0, "running": 0, "input_required": 0}


async def test_every_step_of_a_life_is_counted_once(store: Store) -> None:
    for end in ENDS:
        await ended(store, end)
    other = await running(store, agent="other-1.2")
    await store.append(make_event(other, "task.progress", n=1))
    await store.append(make_event(other, "task.retrying"))
    found = await store.metrics()
    assert tally(found) == {
        "task.queued": 3,
        "task.started": 3,
        "task.completed": 1,
        "task.failed/error": 1,
        "task.cancelled": 1,
        "task.queued other-1.2": 1,
        "task.started other-1.2": 1,
        "task.progress other-1.2": 1,
        "task.retrying/timeout other-1.2": 1,
    }
    assert numbers(dict(found.waits)) == numbers(dict(found.runs)) == {"echo": 3, "other-1.2": 1}


async def test_the_counts_are_those_of_the_logs(store: Store) -> None:
    for number, end in enumerate(ENDS * 3):
        await ended(store, end, session_id=f"chat {number}", agent=f"agent_{number % 2}")
    await store.cancel((await born(store)).id, force=False, cascade=True)
    asking = await running(store, session_id="chat 1")
    await store.ask(asking, Question(question_id="1-a", question="which?"))
    logged: Counter[str] = Counter()
    for session_id in ("chat", *(f"chat {number}" for number in range(9))):
        for event in (await store.events(session_id, 0, 1000)).events:
            logged[f"{counted_as(event)} {event.agent}"] += 1
    found = await store.metrics()
    shown = {
        f"{type_}/{why} {agent}" if why else f"{type_} {agent}": n
        for (type_, why, agent), n in found.counts.items()
    }
    assert shown == logged


async def test_what_is_written_again_is_not_counted_again(store: Store) -> None:
    task = await running(store)
    await store.create(task, None, None)
    for _ in range(3):
        await store.append(make_event(task, "task.progress", n=1))
    for end in (*ENDS, *ENDS):
        await store.append(make_event(task, end))
    await store.append(make_event(task, "task.retrying"))
    await store.cancel(task.id, force=True, cascade=True)
    found = await store.metrics()
    assert tally(found) == {"task.queued": 1, "task.started": 1, "task.progress": 1, "task.completed": 1}
    assert numbers(dict(found.runs)) == {"echo": 1}


async def test_a_claim_that_is_repeated_counts_once(store: Store) -> None:
    task = await born(store)
    for _ in range(3):
        assert await store.claim(task.id, "w1", LEASE, "token")
    found = await store.metrics()
    assert (tally(found)["task.started"], found.waits["echo"].count) == (1, 1)


async def test_why_it_failed_and_who_was_lost_is_told_apart(store: Store) -> None:
    for reason in (Reason.TIMEOUT, Reason.ERROR, Reason.TIMEOUT):
        task = await running(store)
        await store.append(make_event(task, "task.failed", FailedData(reason=reason, error=OOPS)))
    for cause in ("worker_lost", "shutdown"):
        task = await running(store)
        await store.append(make_event(task, "task.attempt_lost", AttemptLostData(cause=cause, losses=1)))
    found = await store.metrics()
    told = {(each.type, each.detail): n for each, n in found.counts.items() if each.detail}
    assert told == {
        ("task.failed", "timeout"): 2,
        ("task.failed", "error"): 1,
        ("task.attempt_lost", "worker_lost"): 1,
        ("task.attempt_lost", "shutdown"): 1,
    }
    assert found.runs["echo"].count == 5


async def test_what_never_began_has_an_end_but_took_no_time(store: Store) -> None:
    await store.append(make_event(await born(store), "task.rejected"))
    await store.append(make_event(await born(store), "task.failed"))
    parent = await running(store)
    await born(store, parent_task_id=parent.id, parent_attempt=parent.attempt)
    await store.cancel(parent.id, force=False, cascade=True)
    found = await store.metrics()
    assert found.total("task.rejected", "task.failed", "task.cancelled") == 3
    assert (found.waits["echo"].count, found.runs) == (1, {})


async def test_only_the_first_attempt_waits_but_every_attempt_runs(store: Store) -> None:
    task = await running(store)
    for end in ("task.retrying", "task.attempt_lost", "task.completed"):
        await store.append(make_event(task, end))
        if end != "task.completed":
            task = await claimed(store, task.id)
    found = await store.metrics()
    assert (found.waits["echo"].count, found.runs["echo"].count) == (1, 3)
    assert found.total("task.started", agent="echo") == 3


async def test_an_attempt_is_counted_for_the_agent_that_ran_it(store: Store) -> None:
    task = await running(store, options={"fallback": "spare"})
    event = falling(task)
    await store.append(event, moved=task.model_copy(update={"agent": "spare"}))
    task = await claimed(store, task.id)
    await store.append(make_event(task, "task.completed"))
    found = await store.metrics()
    assert numbers(dict(found.runs)) == {"echo": 1, "spare": 1}
    assert (found.total("task.completed", agent="spare"), found.total("task.completed", agent="echo")) == (
        1,
        0,
    )


async def test_callbacks_are_counted_by_kind_and_outcome(store: Store) -> None:
    options = {"callbacks": {"on_complete": "done"}, "webhook": {"url": "https://example.com/x"}}
    await ended(store, options=options)
    call, post = await store.ledger.claim(LEASE), await store.ledger.claim(LEASE, webhooks=True)
    assert call and post
    await store.ledger.fail(call, OOPS, 0.0)
    for _ in range(2):  # its reply was lost
        await store.ledger.give_up(post, OOPS)
    again = await store.ledger.claim(LEASE)
    assert again
    for _ in range(2):
        await store.ledger.succeed(again)
    found = await store.metrics()
    assert {(each.type, each.detail): n for each, n in found.counts.items() if "callback" in each.type} == {
        ("callback.failed", "on_complete"): 1,
        ("callback.succeeded", "on_complete"): 1,
        ("callback.dead", "webhook"): 1,
    }


async def test_what_is_spent_is_counted_by_agent_and_model_however_the_attempt_ends(store: Store) -> None:
    task = await running(store)
    amount = Usage(requests=1, tool_calls=2, input_tokens=30, output_tokens=4, cost_usd=0.5)
    for _ in range(2):  # its reply was lost
        await store.spend(task, 1, amount, asks=False, model="llama3:8b")
    await store.spend(task, 2, Usage(output_tokens=6), asks=False, model="llama3:8b")
    await store.append(make_event(task, "task.attempt_lost"))
    await store.spend(task, 3, Usage(tool_calls=1), asks=True)  # it is over: refused
    await store.spend(task, 4, Usage(input_tokens=1), asks=False)  # spent all the same
    other = await running(store, agent="other")
    await store.spend(other, 1, Usage(requests=1), asks=True, model="a model")
    assert (await store.metrics()).spent == {
        ("echo", "llama3:8b"): amount + Usage(output_tokens=6),
        ("echo", ""): Usage(input_tokens=1),
        ("other", "a model"): Usage(requests=1),
    }


async def test_names_of_models_without_end_are_counted_as_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await running(store)
    for place in ("core.metrics", "adapters.redis_store.accounts"):
        monkeypatch.setattr(f"hermes_async.{place}.MOST_FIELDS", 6)
    for number in range(20):
        await store.spend(task, number + 1, Usage(requests=1), asks=True, model=f"m{number % 10}")
    found = (await store.metrics()).spent
    assert sum(usage.requests for usage in found.values()) == 20
    assert ("echo", "other") in found and ("echo", "m0") in found
    assert len(found) <= 6


# -- how long it took ------------------------------------------------------------------------------------
async def test_times_are_added_up_and_put_into_buckets(store: Store) -> None:
    task = await born(store)
    await asyncio.sleep(0.03)
    began = time.monotonic()
    task = await claimed(store, task.id)
    await asyncio.sleep(0.12)
    await store.append(make_event(task, "task.completed"))
    most = time.monotonic() - began
    found = await store.metrics()
    assert 0.028 <= found.waits["echo"].seconds < 5
    assert 0.118 <= found.runs["echo"].seconds <= most + 0.002
    within = dict(found.runs["echo"].cumulative())
    assert (within[0.1], within[float("inf")]) == (0, 1)


def test_the_scripts_have_the_same_edges() -> None:
    text = (Path(redis_store.__file__).parent / "lua/pen.lua").read_text()
    [first] = re.findall(r"if took > (\d+) then", text)
    [edges] = re.findall(r"edges, place = \{(.*?), 'inf'\}", text, re.S)
    assert [int(edge) for edge in (first, *re.findall(r"\d+", edges))] == list(EDGES)
    assert f"local edge = '{first}'" in text and f"place < {len(EDGES)} " in text


async def test_redis_finds_the_bucket_that_we_do(redis_url: str) -> None:
    """The birth is set back in the record: no clock is waited for."""
    async with closing(RedisStore(redis_url)) as store:
        for seconds, edge in ((0, 0.25), (20, 30.0), (500, 600.0), (3_500, 3_600.0), (9_000, float("inf"))):
            task = await born(store, agent=f"a{seconds}")
            key = f"{store._keys.of_task(task.id)}task:{task.id}"
            birth = round((task.created_at - seconds) * 1000)
            await store._reads.read("HSET", key, "created_at", birth)
            await store.claim(task.id, "w1", LEASE)
            waited = (await store.metrics()).waits[f"a{seconds}"]
            assert seconds <= waited.seconds < seconds + 5
            assert next(at for at, so_far in waited.cumulative() if so_far) <= edge
            assert seconds == 0 or next(at for at, so_far in waited.cumulative() if so_far) == edge


async def test_redis_puts_what_took_as_long_as_an_edge_below_it_as_we_do(redis_url: str) -> None:
    lua = Path(redis_store.__file__).parent / "lua"
    pen, every = (lua / "pen.lua").read_text(), (lua / "every.lua").read_text()
    async with closing(RedisStore(redis_url)) as store:
        for ms in [edge + more for edge in EDGES for more in (-1, 0, 1)]:
            script = f"{pen}\nlocal function call() count('x', 'a{ms}', {ms}) end\n{every}"
            await store._reads.read("EVAL", script, 1, store._keys.prefixes[0], 0, 0, 0, 0)
            place = bisect_left(EDGES, ms)
            edge = EDGES[place] if place < len(EDGES) else "inf"
            assert await store._reads.read("HGET", store._keys.metrics, f"x:{edge} a{ms}") == "1"


async def test_a_clock_that_is_set_back_takes_nothing_away(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        task = await born(store)
        key = f"{store._keys.of_task(task.id)}task:{task.id}"
        await store._reads.read("HSET", key, "created_at", round((task.created_at + 100) * 1000))
        await store.claim(task.id, "w1", LEASE)
        waited = (await store.metrics()).waits["echo"]
        assert (waited.count, waited.seconds) == (1, 0.0)


# -- how the tasks stand ---------------------------------------------------------------------------------
async def test_how_many_wait_run_and_ask(store: Store) -> None:
    await born(store, session_id="one")
    await born(store, session_id="two")
    await running(store)
    asking = await running(store)
    await store.ask(asking, Question(question_id="1-a", question="which?"))
    await ended(store)
    assert (await store.metrics()).open == {"queued": 2, "running": 1, "input_required": 1}


async def test_the_oldest_that_waits_has_not_begun(store: Store) -> None:
    tried = await running(store, session_id="one")
    await asyncio.sleep(0.1)
    await store.append(make_event(tried, "task.retrying"))
    assert (await store.metrics()).oldest is None
    began = time.monotonic()
    await born(store, session_id="one")
    await asyncio.sleep(0.05)
    await born(store, session_id="two")
    oldest = (await store.metrics()).oldest
    assert oldest is not None
    assert 0.04 < oldest < time.monotonic() - began + 0.01


# -- what stays ------------------------------------------------------------------------------------------
async def test_what_is_forgotten_stays_counted(store: Store) -> None:
    for end in ENDS:
        await ended(store, end)
    before = await store.metrics()
    assert await wait_until_async(lambda: store.prune(0.0)) == 3
    after = await store.metrics()
    assert (after.counts, after.runs, after.waits) == (before.counts, before.runs, before.waits)


async def test_one_key_stays_and_redis_finds_its_fields_at_once(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        await ended(store)
        await wait_until_async(lambda: store.prune(0.0))
        assert await store._reads.read("KEYS", "*") == ["hermes:metrics"]
        assert (await store.metrics()).since is None
        await store.lead("w1", LEASE)
        assert await store._reads.read("OBJECT", "ENCODING", "hermes:metrics") == "hashtable"
        since = (await store.metrics()).since
        assert since is not None and abs(since - time.time()) < 60
        await store.lead("w1", LEASE)
        assert (await store.metrics()).since == since
        assert (await store.metrics()).counts[Counted("task.completed", "", "echo")] == 1
