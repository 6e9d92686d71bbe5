"""Real Celery workers over the transport: limits, priorities, and what happens when things are killed."""

from __future__ import annotations

import signal
import time

import pytest
import redis

from tests.support.field import LEASE, NAP, SYNC_NAP, Field
from tests.support.proxy import Mode, proxy_to
from tests.support.servers import wait_until

pytestmark = pytest.mark.acceptance


def test_three_hundred_coroutines_wait_together_and_limits_hold(field: Field) -> None:
    field.ready(310)
    published = {field.send(NAP, 1.0): time.time() for _ in range(300)}
    soft = field.send(NAP, 30, soft_time_limit=0.3, time_limit=30)
    hard = field.send(NAP, 30, time_limit=1)
    doomed = field.send(NAP, 30)
    field.wait_for("start", 303)
    field.app.control.revoke(doomed, terminate=True)
    ends = field.wait_for("end", 300)
    assert max(note.at - published[note.id] for note in ends) < 4
    assert max(note.at - published[note.id] for note in field.notes("start") if note.id in published) < 3
    assert [note.id for note in field.wait_for("soft", 1)] == [soft]
    assert {note.id for note in field.wait_for("cancelled", 2)} == {hard, doomed}
    assert field.app.control.ping(timeout=1, limit=1)[0]
    field.wait_until_empty()
    assert max(field.starts().values()) == 1


def test_acks_are_sent_soon_and_together(field: Field) -> None:
    sent = [field.send(NAP, 0.1) for _ in range(100)]
    field.redis.config_resetstat()  # other tests have acknowledged on this server too
    field.worker(100, lease=300.0)  # its own beat would send them after 100 s
    field.wait_for("end", len(sent))
    field.wait_until_empty()
    assert 0 < field.redis.info("commandstats")["cmdstat_xack"]["calls"] < len(sent) / 2


def test_prefork_runs_dead_letters_poison_and_stops_warmly(field: Field) -> None:
    worker = field.ready(2, pool="prefork", max_deliveries=1)
    poison = field.send("tests.support.tasks.kill_child")
    ids = {field.send(SYNC_NAP, 0.1) for _ in range(4)}
    field.wait_for("end", 4)
    wait_until(lambda: field.redis.xlen("celery.dead") == 1, 20)
    assert field.starts()[poison] == 1
    last = field.send(SYNC_NAP, 1)
    wait_until(lambda: field.starts()[last])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert {note.id for note in field.notes("end")} == {*ids, last}
    field.wait_until_empty()


def test_nine_is_first_and_a_warm_stop_finishes_what_runs(field: Field) -> None:
    ids = {field.send(NAP, 0.02, priority=priority): priority for priority in (0, 5, 9, 3, 9, 5)}
    worker = field.ready(1)
    field.wait_for("end", 6)
    assert [ids[note.id] for note in field.notes("start")] == [9, 9, 5, 5, 3, 0]
    running, waiting = field.send(NAP, 1), field.send(NAP, 1)
    wait_until(lambda: field.starts()[running])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.log
    assert running in {note.id for note in field.notes("end")}
    assert not field.starts()[waiting]
    assert field.redis.xlen("celery") == 1
    assert field.redis.xinfo_consumers("celery", "celery") == []


def test_a_killed_workers_tasks_run_again_within_the_lease(field: Field) -> None:
    first = field.ready(4)
    ids = {field.send(NAP, 3) for _ in range(4)}
    field.wait_for("start", 4)
    first.kill()
    killed = time.time()
    field.ready(4)
    restarts = [note for note in field.wait_for("start", 8) if note.at > killed]
    assert {note.id for note in restarts} == ids
    assert max(note.at for note in restarts) - killed < 2 * LEASE + 2
    field.wait_for("end", 4)  # three seconds are longer than the lease
    field.wait_until_empty()
    assert set(field.starts().values()) == {2}


def test_a_cold_stop_hands_the_tasks_on_even_after_a_warm_one(field: Field) -> None:
    worker = field.ready(4)
    task = field.send(NAP, 20)
    field.wait_for("start", 1)
    worker.signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    worker.signal(signal.SIGQUIT)
    worker.wait()
    assert [note.id for note in field.notes("cancelled")] == [task]
    assert field.redis.xlen("celery") == 1
    assert field.redis.xpending("celery", "celery")["pending"] == 0


def blip(field: Field) -> None:
    for kind in ("normal", "pubsub"):
        field.redis.client_kill_filter(_type=kind, skipme=True)


def test_a_connection_blip_duplicates_nothing(field: Field) -> None:
    worker = field.ready(10)
    ids = {field.send(NAP, LEASE + 1) for _ in range(8)}
    field.wait_for("start", 8)
    blip(field)
    worker.wait_for_log("Connection to broker lost")
    field.wait_for("end", 8)
    last = field.send(NAP, 0)
    wait_until(lambda: field.starts()[last])
    field.wait_until_empty()
    assert set(field.starts().values()) == {1}
    assert set(field.starts()) == {*ids, last}


def test_after_a_blip_a_worker_fetches_no_more_than_it_has_slots(field: Field) -> None:
    worker = field.ready(2)
    first = {field.send(NAP, 3) for _ in range(2)}
    field.wait_for("start", 2)
    second = {field.send(NAP, 0.1) for _ in range(3)}
    blip(field)
    wait_until(lambda: worker.log.count("Connected to") == 2)
    assert not field.notes("end")
    assert first | second == {note.id for note in field.wait_for("end", 5)}
    assert worker.log.partition("succeeded")[0].count("received") == 2
    field.wait_until_empty()


def test_flushall_is_survived(field: Field) -> None:
    field.ready(4)
    field.send(NAP, 0)
    field.wait_for("end", 1)
    field.redis.flushall()
    again = field.send(NAP, 0)
    wait_until(lambda: field.starts()[again])
    field.wait_for("end", 1)


def test_a_coroutine_that_always_exits_ends_in_the_dead_letters(field: Field) -> None:
    worker = field.ready(4, max_deliveries=3)
    poison = field.send("tests.support.tasks.exit_worker")
    wait_until(lambda: field.redis.xlen("celery.dead") == 1)
    assert field.starts()[poison] == 3
    assert worker.alive


def test_who_slept_longer_than_its_lease_takes_nothing_from_who_took_over(field: Field) -> None:
    sleeper = field.ready(4)
    ids = {field.send(NAP, 4) for _ in range(4)}
    field.wait_for("start", 4)
    sleeper.signal(signal.SIGSTOP)
    heir = field.ready(4)
    wait_until(lambda: len([note for note in field.notes("start") if note.pid == heir.pid]) == 4, 15)
    sleeper.signal(signal.SIGCONT)
    wait_until(lambda: len([note for note in field.notes("end") if note.pid == sleeper.pid]) == 4)
    last = field.send(NAP, 0)  # it is at work again, and its acks were sent before
    wait_until(lambda: field.starts()[last])
    assert field.redis.xlen("celery") >= 4  # what the heir runs is still there, should it die
    field.wait_for("end", 9)
    field.wait_until_empty()
    assert {id_ for id_, count in field.starts().items() if count == 2} == ids


def test_a_silent_network_is_noticed_and_nothing_is_lost(field: Field) -> None:
    with proxy_to(field.server.port) as proxy:
        field.broker = f"redisstream://127.0.0.1:{proxy.port}/0"
        worker = field.ready(4, health_check_interval=1, socket_timeout=1.0)
        proxy.set(Mode.DROP)
        for _ in range(10):
            field.send("tests.support.tasks.noop")
        proxy.set(Mode.HALF_OPEN)
        field.wait_until_empty()
        assert worker.alive
        worker.kill()


def test_a_server_that_refuses_for_a_while_ends_no_worker(own_field: Field) -> None:
    worker = own_field.ready(4)
    task = own_field.send(NAP, 5)
    own_field.wait_for("start", 1)
    port = own_field.redis.connection_pool.connection_kwargs["port"]
    own_field.redis.replicaof("127.0.0.1", port)
    worker.wait_for_log("ReadOnlyError")
    own_field.redis.replicaof("NO", "ONE")
    own_field.wait_for("end", 1)
    last = own_field.send(NAP, 0)
    wait_until(lambda: own_field.starts()[last], 20)
    own_field.wait_until_empty()
    assert own_field.starts() == {task: 1, last: 1}
    assert worker.alive


def test_a_task_may_refuse_its_message_and_is_told_when_it_comes_again(field: Field) -> None:
    field.ready(4)
    task = field.send("tests.support.tasks.refuse_once")
    assert [note.id for note in field.wait_for("redelivered", 1)] == [task]
    field.wait_until_empty()
    assert field.starts() == {task: 1}
    assert field.redis.xlen("celery.dead") == 0


def test_nothing_is_lost_when_the_server_restarts(own_field: Field) -> None:
    own_field.ready(4)
    ids = {own_field.send(NAP, 1.5) for _ in range(8)}
    own_field.wait_for("start", 4)
    own_field.server.restart()
    wait_until(lambda: answers(own_field.redis))
    ends = own_field.wait_for("end", 8, timeout=20)
    assert {note.id for note in ends} == ids


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
