"""Celery's remote control over the transport, and two apps that share a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.field import NAP, Field
from tests.support.servers import Process, RedisServer, wait_until

pytestmark = pytest.mark.acceptance


def test_remote_control_sees_and_changes_what_is_consumed(field: Field) -> None:
    worker = field.ready(2)
    inspect, control = field.app.control.inspect(timeout=2, limit=1), field.app.control
    running = {field.send(NAP, 30) for _ in range(2)}
    waiting = [field.send(NAP, 30) for _ in range(3)]
    field.wait_for("start", 2)
    ((name, queues),) = inspect.active_queues().items()
    assert [queue["name"] for queue in queues] == ["celery"]
    assert {task["id"] for task in inspect.active()[name]} == running
    assert inspect.reserved()[name] == []  # what no slot is free for stays on the broker
    stats = inspect.stats()[name]
    assert (stats["broker"]["transport"], stats["prefetch_count"]) == ("redisstream", 2)
    assert stats["pid"] == worker.pid

    assert control.purge() == len(waiting)
    assert field.celery("purge", "-f").startswith("No messages purged")
    control.add_consumer("second", destination=[name], reply=True, timeout=5)
    assert {queue["name"] for queue in inspect.active_queues()[name]} == {"celery", "second"}
    for id_ in running:
        control.revoke(id_, terminate=True)
    heard = field.send(NAP, 0, queue="second")
    wait_until(lambda: field.starts()[heard])
    control.cancel_consumer("second", destination=[name], reply=True, timeout=5)
    assert [queue["name"] for queue in inspect.active_queues()[name]] == ["celery"]
    unheard, last = field.send(NAP, 0, queue="second"), field.send(NAP, 0)
    wait_until(lambda: field.starts()[last])
    assert not field.starts()[unheard]
    assert length(field, "second") == 1


def length(field: Field, queue: str) -> int:
    """As monitoring may ask for it, whatever the broker."""
    with field.app.connection_for_read() as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


def test_apps_with_prefixes_of_their_own_do_not_meet(
    redis_server: RedisServer, redis_url: str, spawn: Callable[..., Process]
) -> None:
    fields = [Field(redis_server, spawn, global_keyprefix=name) for name in ("one.", "two.")]
    workers = [field.ready(2) for field in fields]
    for field, worker in zip(fields, workers, strict=True):
        ids = {field.send(NAP, 0) for _ in range(5)}
        wait_until(lambda ids=ids: ids <= {note.id for note in fields[0].notes("end")})
        assert {note.pid for note in field.notes("end") if note.id in ids} == {worker.pid}
        (stats,) = field.app.control.inspect(timeout=1).stats().values()
        assert stats["pid"] == worker.pid
        field.close()
