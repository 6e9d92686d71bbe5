"""A tail's place in a log: nothing is skipped, whatever interrupts its reading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.core.page import Page
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.relay.tail import Tail, Topic
from tests.unit.relay.conftest import finish, new_task, only_memory, progress

pytestmark = [pytest.mark.anyio, only_memory]


async def events(tail: Tail) -> AsyncIterator[dict[str, Any]]:
    while not tail.ended:
        for event in (await tail.read(0) or {"events": []})["events"]:
            yield event


async def test_a_read_that_fails_moves_nothing(hermes: Hermes, monkeypatch: pytest.MonkeyPatch) -> None:
    task = await new_task(hermes, "s")
    await progress(hermes, task, range(1, 2))
    tail = Tail(hermes.store, Topic("s", task.id), 0)
    with monkeypatch.context() as away:

        async def load(task_id: str) -> None:
            raise StoreUnavailable("away")

        away.setattr(hermes.store, "load", load)
        with pytest.raises(StoreUnavailable):
            await tail.read(0)
    assert tail.after == 0
    await finish(hermes, task)
    assert [event["seq"] async for event in events(tail)] == list(range(1, 5))


async def test_a_limit_bounds_what_is_read_at_once(hermes: Hermes) -> None:
    task, other = await new_task(hermes, "s"), await new_task(hermes, "s")
    for number in range(1, 10):
        await progress(hermes, task, [number])  # type: ignore[arg-type]
        await progress(hermes, other, [number])  # type: ignore[arg-type]
    last = await finish(hermes, task)
    for limit in (1, 2, 5, 100):
        tail = Tail(hermes.store, Topic("s", task.id), 0, limit)
        seen = [event["task_id"] async for event in events(tail)]
        assert (seen, tail.after) == ([task.id] * 12, last)


async def test_large_events_are_not_read_by_the_hundred(
    hermes: Hermes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(60):
        await hermes.session("s").send_message("x" * 60_000)
    asked, read = list[int](), hermes.store.events

    async def noted(session_id: str, after: int, limit: int) -> Page:
        asked.append(limit)
        return await read(session_id, after, limit)

    monkeypatch.setattr(hermes.store, "events", noted)
    tail = Tail(hermes.store, Topic("s"), 0)
    seen = []
    while not tail.caught_up:
        seen += (await tail.read(0) or {"events": []})["events"]
    assert [event["seq"] for event in seen] == list(range(1, 61))
    assert max(asked) <= 8
    tail = Tail(hermes.store, Topic("s", "t01-x"), 0)  # nothing of all that is for it
    while not tail.caught_up:
        await tail.read(0)
    assert asked[-1] > 8
