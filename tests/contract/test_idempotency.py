"""For which task an idempotency key stands: within its circle, for its time, and for no other session's."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.ids import partition
from hermes_async.core.ports import Store
from hermes_async.domain.errors import IdempotencyConflict
from hermes_async.domain.task import Task
from tests.contract.conftest import closing
from tests.support.servers import wait_until_async
from tests.support.values import make_event, make_task

pytestmark = pytest.mark.anyio
INPUT = {"text": "x"}


async def born(
    store: Store, session_id: str = "chat", *, key: str = "k", parent: str | None = "boss", **rule: Any
) -> Task:
    """A new task under a key, or the one for which the key stands."""
    task = make_task(session_id, input=INPUT, options={"idempotency": rule} if rule else {})
    birth = task.birth.model_copy(update={"parent": parent})
    return await store.create(task.model_copy(update={"birth": birth}), None, key)


@pytest.mark.parametrize("scope", ["session", "parent", "global"])
async def test_a_key_stands_for_one_task_in_its_session(store: Store, scope: str) -> None:
    first = await born(store, scope=scope)
    assert (await born(store, scope=scope)).id == first.id
    assert (await born(store, scope=scope, key="other")).id != first.id


@pytest.mark.parametrize(
    ("scope", "parent", "is_same"),
    [
        ("session", "boss", False),
        ("parent", "boss", True),
        ("parent", "other", False),
        ("parent", None, False),
        ("global", "boss", True),
        ("global", None, True),
    ],
)
async def test_beyond_its_session_a_key_is_refused_and_tells_nothing(
    store: Store, scope: str, parent: str | None, is_same: bool
) -> None:
    first = await born(store, scope=scope)
    if not is_same:
        assert (await born(store, "far", scope=scope, parent=parent)).id != first.id
        return
    with pytest.raises(IdempotencyConflict, match="'k' was used in another session") as caught:
        await born(store, "far", scope=scope, parent=parent)
    assert first.id not in str(caught.value)
    assert await store.tasks(session_id="far") == []


async def test_circles_of_different_widths_do_not_meet(store: Store) -> None:
    ids = {(await born(store, scope=scope)).id for scope in ("session", "parent", "global")}
    assert len(ids) == 3


async def test_a_name_in_two_parts_is_not_taken_for_another(store: Store) -> None:
    name = next(f"a:{n}" for n in range(1_000) if partition(f"a:{n}") == partition("a"))
    first = await born(store, "a", key=f"{name[2:]}:k")
    assert (await born(store, name)).id != first.id


async def test_a_key_stands_for_its_time(store: Store) -> None:
    first, forever = await born(store, ttl=0.2), await born(store, key="other")
    assert (await born(store)).id == first.id

    async def is_over() -> bool:
        return (await born(store)).id != first.id

    await wait_until_async(is_over)
    assert (await born(store, key="other")).id == forever.id


async def test_a_task_that_is_forgotten_frees_its_own_key_only(store: Store) -> None:
    first = await born(store, ttl=0.001)
    await store.append(make_event(first, "task.rejected"))
    later: list[Task] = []

    async def is_over() -> bool:
        later[:] = [await born(store)]
        return later[0].id != first.id

    await wait_until_async(is_over)
    assert await store.prune(0.0) == 1
    assert (await born(store)).id == later[0].id
    await store.append(make_event(later[0], "task.rejected"))
    await store.prune(0.0)
    assert (await born(store)).id != later[0].id


async def test_no_key_is_left(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        for scope in ("session", "parent", "global"):
            await store.append(make_event(await born(store, scope=scope), "task.rejected"))
        await store.prune(0.0)
        assert await store._reads.read("KEYS", "*") == ["hermes:metrics"]
