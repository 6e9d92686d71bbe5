"""What a relay says over real sockets, over each store."""

from __future__ import annotations

import asyncio
import json

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.relay.auth import mint
from hermes_async.relay.tail import BATCH_BYTES, BATCH_EVENTS
from tests.support.servers import wait_until_async
from tests.unit.relay.conftest import (
    SECRET,
    MakeStore,
    Station,
    finish,
    hermes_over,
    new_task,
    only_memory,
    progress,
    say,
    token,
)

pytestmark = pytest.mark.anyio
REFUSED = {"code": "not_found", "message": "there is no such session or task, or it is not yours"}


async def test_a_session_is_told_from_the_beginning_and_on(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "s", 400)
    async with relay.socket(token("s")) as socket:
        answer = await socket.ask("subscribe", {"session": "s", "after": 0})
        assert answer == {"ok": True, "session": "s", "task": None, "seq": 400}
        await say(hermes, "s", 20, start=401)
        await wait_until_async(lambda: len(socket.events) == 420)
    assert [event["seq"] for event in socket.events] == list(range(1, 421))
    assert [event["data"]["text"] for event in socket.events] == [str(n) for n in range(1, 421)]
    assert max(len(batch["events"]) for batch in socket.batches) == BATCH_EVENTS
    first = socket.batches[0]
    assert (first["session"], first["task"], first["gap"], first["snapshot"]) == ("s", None, None, None)
    assert not first["end"]
    logged = await hermes.store.events("s", 0, 1)
    assert first["events"][0] == json.loads(logged.events[0].model_dump_json())


async def test_what_is_foreign_looks_as_if_it_did_not_exist(hermes: Hermes, relay: Station) -> None:
    foreign = await new_task(hermes, "theirs")
    absent = (await new_task(hermes, "t")).id[:-4] + "zzzz"
    wishes = [
        {"session": "theirs"},
        {"session": "nobody's"},
        {"task": foreign.id},
        {"task": absent},
        {"task": "x"},
    ]
    async with relay.socket(token("mine")) as socket:
        answers = [await socket.ask("subscribe", wish) for wish in wishes]
    assert {json.dumps(answer) for answer in answers} == {json.dumps({"ok": False, "error": REFUSED})}
    assert socket.batches == []


async def test_a_session_without_events_is_waited_for(hermes: Hermes, relay: Station) -> None:
    async with relay.socket(token("new")) as socket:
        assert (await socket.ask("subscribe", {"session": "new"}))["seq"] == 0
        await say(hermes, "new", 1)
        await wait_until_async(lambda: socket.events)


async def test_a_task_is_told_alone_until_its_end(hermes: Hermes, relay: Station) -> None:
    task, other = await new_task(hermes, "s"), await new_task(hermes, "s")
    async with relay.socket(token("s")) as socket:
        answer = await socket.ask("subscribe", {"task": task.id})
        assert (answer["session"], answer["task"]) == ("s", task.id)
        await progress(hermes, other, range(1, 100))
        await progress(hermes, task, range(1, 3))
        last = await finish(hermes, task)
        await say(hermes, "s", 3)
        await wait_until_async(lambda: socket.batches and socket.batches[-1]["end"])
        assert [event["task_id"] for event in socket.events] == [task.id] * 5
        assert socket.events[-1]["seq"] == last
        assert (await socket.ask("subscribe", {"task": task.id, "after": last}))["ok"]
        await wait_until_async(lambda: sum(batch["end"] for batch in socket.batches) == 2)
        assert socket.batches[-1]["events"] == []


async def test_a_task_that_is_over_ends_at_once(hermes: Hermes, relay: Station) -> None:
    task = await new_task(hermes, "s")
    last = await finish(hermes, task)
    await say(hermes, "s", 5)
    async with relay.socket(token("s")) as socket:
        for times, beyond in enumerate((0, 3, 1_000_000), start=1):
            await socket.ask("subscribe", {"task": task.id, "after": last + beyond})
            await wait_until_async(lambda times=times: len(socket.batches) == times)  # type: ignore[misc]
    assert [(batch["events"], batch["end"]) for batch in socket.batches] == [([], True)] * 3


@only_memory
async def test_a_place_that_does_not_exist_yet_does_not_hide_the_end(hermes: Hermes, relay: Station) -> None:
    task = await new_task(hermes, "s")
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"task": task.id, "after": 1000})
        await asyncio.sleep(0.05)
        await finish(hermes, task)
        await wait_until_async(lambda: socket.batches)
    assert [(batch["events"], batch["end"]) for batch in socket.batches] == [([], True)]


@only_memory
async def test_subscribing_twice_changes_nothing_and_unsubscribing_ends_it(
    hermes: Hermes, relay: Station
) -> None:
    await say(hermes, "s", 5)
    async with relay.socket(token("s")) as socket:
        first = await socket.ask("subscribe", {"session": "s"})
        assert await socket.ask("subscribe", {"session": "s"}) == first
        await wait_until_async(lambda: len(socket.events) == 5)
        assert await socket.ask("unsubscribe", {"session": "s"}) == {"ok": True}
        assert await socket.ask("unsubscribe", {"session": "s"}) == {"ok": True}
        await say(hermes, "s", 5)
        await asyncio.sleep(0.1)
        assert len(socket.events) == 5
        await socket.ask("subscribe", {"session": "s", "after": 5})
        await wait_until_async(lambda: len(socket.events) == 10)
    assert [event["seq"] for event in socket.events] == list(range(1, 11))


@only_memory
async def test_an_operator_hears_every_session(hermes: Hermes, relay: Station) -> None:
    await say(hermes, "a", 1)
    await say(hermes, "b", 1)
    async with relay.socket(mint(SECRET, sub="ops", sessions="*", ttl=60)) as socket:
        for session_id in ("a", "b"):
            assert (await socket.ask("subscribe", {"session": session_id}))["ok"]
        await wait_until_async(lambda: len(socket.events) == 2)
    assert {event["session_id"] for event in socket.events} == {"a", "b"}


@only_memory
async def test_one_batch_is_under_way_however_many_subscriptions(hermes: Hermes, relay: Station) -> None:
    for name in "abc":
        await say(hermes, name, 70)
    async with relay.socket(token("a", "b", "c")) as socket:
        socket.hold.clear()
        for name in "abc":
            await socket.ask("subscribe", {"session": name})
            await socket.ask("unsubscribe", {"session": name})
            await socket.ask("subscribe", {"session": name})
        await asyncio.sleep(0.1)
        assert len(socket.batches) == 1
        socket.hold.set()
        await wait_until_async(lambda: len({event["id"] for event in socket.events}) == 210)


@only_memory
async def test_a_batch_is_bounded_in_bytes(hermes: Hermes, relay: Station) -> None:
    session = hermes.session("s")
    for _ in range(10):
        await session.send_message("x" * 60_000)
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"session": "s"})
        await wait_until_async(lambda: len(socket.events) == 10)
    assert max(len(json.dumps(batch["events"])) for batch in socket.batches) <= BATCH_BYTES
    assert len(socket.batches) == 3


async def test_a_trimmed_place_gets_a_gap_and_a_snapshot(make_store: MakeStore) -> None:
    async with hermes_over(make_store(10)) as hermes, Station(hermes) as relay:
        task = await new_task(hermes, "s")
        await finish(hermes, task)
        await say(hermes, "s", 400)
        kept = await hermes.store.events("s", 0, 500)
        async with relay.socket(token("s")) as socket:
            await socket.ask("subscribe", {"session": "s", "after": 1})
            await wait_until_async(lambda: socket.events and socket.events[-1]["seq"] == 403)
            first = socket.batches[0]
            assert first["events"] == []
            assert first["gap"] == [2, kept.events[0].seq - 1]
            assert [shown["id"] for shown in first["snapshot"]["tasks"]] == [task.id]
            assert first["snapshot"]["tasks"][0]["status"] == "cancelled"
            assert (first["snapshot"]["seq"], first["snapshot"]["more"]) == (403, False)
            assert [event["seq"] for event in socket.events] == [event.seq for event in kept.events]
            socket.batches.clear()
            await socket.ask("subscribe", {"task": task.id, "after": 1})
            await wait_until_async(lambda: socket.batches and socket.batches[-1]["end"])
            assert socket.batches[0]["snapshot"]["tasks"][0]["id"] == task.id
            assert socket.events == []
