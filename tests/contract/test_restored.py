"""A log that does not have any more what a reader has read goes on beyond it, behind a hole."""

from __future__ import annotations

import asyncio

import pytest

from hermes_async.core.ports import Store
from hermes_async.domain.events import MessageData
from tests.contract.conftest import MakeStore
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio
TASK = make_task()


async def talk(store: Store, *texts: str) -> list[str]:
    """Post messages, and return the ids of their events."""
    events = [make_event(TASK, "session.message", MessageData(text=text), n=f"said-{text}") for text in texts]
    for event in events:
        assert await store.post(event)
    return [event.id for event in events]


@pytest.mark.parametrize("id_", ["", "it is known"])
async def test_a_log_as_the_reader_knows_it_stays_as_it_is(store: Store, id_: str) -> None:
    first, _, last = await talk(store, "a", "b", "c")
    assert await store.resume("chat", 1, id_ and first) == 0
    assert await store.resume("chat", 0, "") == 0
    assert await store.resume("never used", 0, "") == 0
    assert await store.head("chat") == (3, last)
    assert await store.head("never used") == (0, "")
    assert await store.last_seq("chat") == 3


async def test_what_was_trimmed_is_not_lost(make_store: MakeStore) -> None:
    store = make_store(length=2)
    first, *_ = await talk(store, *map(str, range(300)))
    assert await store.resume("chat", 1, first) == 0
    await store.close()


@pytest.mark.parametrize("id_", ["", "not there"])
async def test_a_log_that_ends_before_its_reader_goes_on_behind_him(store: Store, id_: str) -> None:
    await talk(store, "a", "b")
    assert await store.resume("chat", 7, id_) == 9
    [event] = (await store.events("chat", 7, 10)).events
    assert (event.seq, event.type, event.data.through, event.task_id) == (9, "session.restored", 8, None)
    for after in (2, 5, 7):  # whoever has read how far
        page = await store.events("chat", after, 10)
        assert page.gap == (after + 1, 8)
    assert await store.resume("chat", 7, id_) == 0  # the next reader finds it done
    assert await store.inbox("chat", 2, 10) == []


async def test_a_log_that_tells_another_story_goes_on_behind_both(store: Store) -> None:
    await talk(store, "a", "b", "c")
    assert await store.resume("chat", 2, "something else") == 5
    page = await store.events("chat", 0, 10)
    assert ([event.seq for event in page.events], page.gap, page.is_cut) == ([1, 2, 3], None, True)
    page = await store.events("chat", 3, 10)
    assert ([event.seq for event in page.events], page.gap, page.is_cut) == ([5], (4, 4), False)
    assert await talk(store, "d")
    assert await store.last_seq("chat") == 6


async def test_readers_that_come_at_once_find_one_log_that_goes_on_behind_them_all(store: Store) -> None:
    await talk(store, "a", "b")
    calls = (store.resume("chat", seq, "not there") for seq in (7, 20, 30, 12))
    assert await asyncio.gather(*calls) == [9, 22, 32, 0]
    assert [event.seq for event in (await store.events("chat", 30, 10)).events] == [32]
    assert await store.last_seq("chat") == 32
