"""Records that this version cannot read, as a newer one may write them, or an accident leave them."""

from __future__ import annotations

from collections.abc import Mapping

from hermes_async.core.ports import Store

#: By what is wrong: fields and what becomes of them; None: they are gone.
DAMAGES: Mapping[str, Mapping[str, str | None]] = {
    "cut off": {"birth": '{"id": "echo"'},
    "no birth": {"birth": None},
    "half a birth": {"birth": '{"id": "echo"}\n{"id": "t00-1"}'},
    "an option of the future": {"birth": '{"id": "echo", "priority": "urgent"}\n{}'},
    "no agent": {"agent": None},
    "no trace": {"birth": "", "trace": None},
    "no time": {"created_at": None},
    "a status of the future": {"status": "paused"},
    "a partial of the future": {"partial:text": "<b>"},
}


async def damage(store: Store, task_id: str, fields: Mapping[str, str | None]) -> None:
    """Spoil the record of a task in Redis."""
    key = f"{store._keys.of_task(task_id)}task:{task_id}"  # type: ignore[attr-defined]
    for name, value in fields.items():
        what = ("HDEL", key, name) if value is None else ("HSET", key, name, value)
        await store._reads.read(*what)  # type: ignore[attr-defined]


async def raw(store: Store, task_id: str, *names: str) -> list[str | None]:
    """Return fields of a record as they are."""
    key = f"{store._keys.of_task(task_id)}task:{task_id}"  # type: ignore[attr-defined]
    found: list[str | None] = await store._reads.read("HMGET", key, *names)  # type: ignore[attr-defined]
    return found
