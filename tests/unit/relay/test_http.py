"""What a relay says over plain HTTP, over each store: tasks, sessions, refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hermes_async.adapters.memory import MemoryQueue, MemoryStore
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.hermes import Hermes
from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig, GateLimits
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.domain.question import Question
from hermes_async.domain.task import Lane
from hermes_async.relay.auth import mint, verify
from hermes_async.relay.http.strict import BODY_BYTES
from hermes_async.relay.line import Limits
from tests.support.agents import echo
from tests.support.servers import BUSY, free_port
from tests.support.silent import silent_server
from tests.unit.relay.caller import Caller
from tests.unit.relay.conftest import (
    SECRET,
    MakeStore,
    Station,
    background_tasks,
    finish,
    new_task,
    only_memory,
    say,
    token,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hermes(make_store: MakeStore) -> AsyncIterator[Hermes]:
    hermes = Hermes(Registry(AgentsConfig(), [echo]), make_store(10_000), MemoryQueue())
    yield hermes
    await hermes.close()


@pytest.fixture
def call(http: aiohttp.ClientSession, relay: Station) -> Caller:
    return Caller(http, relay.url, token("s"))


async def test_a_task_is_created_looked_at_and_cancelled(hermes: Hermes, call: Caller) -> None:
    made = await call("POST", "/v1/sessions/s/tasks", {"subagent": "echo", "input": "hello", "priority": 7})
    assert made.status == 201
    assert made.said["input"] == {"text": "hello"}
    assert (made.said["status"], made.said["session_id"]) == ("queued", "s")
    place = made.headers["location"]
    assert place == f"/v1/tasks/{made.said['id']}"
    assert (await call("GET", place)).said == made.said
    assert (await call("GET", f"{place}/result")).status == 202
    assert (await call("GET", "/v1/tasks?status=queued&agent=echo")).said == {"tasks": [made.said]}
    assert (await call("GET", "/v1/tasks?session=s&status=failed")).said == {"tasks": []}
    cancelled = await call("POST", f"{place}/cancel")
    assert (cancelled.status, cancelled.said["status"]) == (200, "cancelled")
    assert (await call("POST", f"{place}/cancel", {"force": True})).said["status"] == "cancelled"
    result = await call("GET", f"{place}/result")
    assert (result.status, result.said["status"], result.said["task_id"]) == (
        200,
        "cancelled",
        made.said["id"],
    )
    types = [event.type for event in (await hermes.store.events("s", 0, 10)).events]
    assert types == ["task.queued", "task.cancel_requested", "task.cancelled"]


async def test_a_task_is_in_the_trace_that_the_request_names(call: Caller) -> None:
    where = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=x"}
    made = await call("POST", "/v1/sessions/s/tasks", {"subagent": "echo", "input": "x"}, headers=where)
    assert made.said["trace_id"] == "a" * 32
    assert "traceparent" not in made.said
    assert "tracestate" not in made.said
    wrong = {"traceparent": "00-nothing", "tracestate": "x"}
    made = await call("POST", "/v1/sessions/s/tasks", {"subagent": "echo", "input": "x"}, headers=wrong)
    assert made.status == 201
    assert made.said["trace_id"] != "a" * 32


async def test_an_idempotency_key_gives_one_task_however_it_is_said(call: Caller) -> None:
    wanted = {"subagent": "echo", "input": {"text": "hello"}}
    first = await call("POST", "/v1/sessions/s/tasks", {**wanted, "idempotency_key": "k"})
    again = await call("POST", "/v1/sessions/s/tasks", wanted, headers={"Idempotency-Key": "k"})
    assert (first.status, again.status) == (201, 200)
    assert again.said["id"] == first.said["id"]
    other = {**wanted, "input": "bye", "idempotency_key": "k"}
    assert await call.refused("POST", "/v1/sessions/s/tasks", other) == (409, "conflict")
    twice = {"Idempotency-Key": "l"}
    assert (await call.refused("POST", "/v1/sessions/s/tasks", other, headers=twice))[0] == 422


async def test_a_result_is_waited_for(hermes: Hermes, call: Caller) -> None:
    task = await new_task(hermes, "s")
    began = asyncio.get_running_loop().time()
    early = await call("GET", f"/v1/tasks/{task.id}/result?wait=0.2")
    assert (early.status, early.said["status"]) == (202, "running")
    assert 0.2 <= asyncio.get_running_loop().time() - began < 2
    waiting = asyncio.create_task(call("GET", f"/v1/tasks/{task.id}/result?wait=60"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await finish(hermes, task)
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.status, answer.said["status"]) == (200, "cancelled")


async def test_a_question_is_answered_once_and_a_task_is_told_things(hermes: Hermes, call: Caller) -> None:
    task = await new_task(hermes, "s")
    path = f"/v1/tasks/{task.id}"
    assert await call.refused("POST", f"{path}/answer", {"value": 5}) == (409, "not_taken")
    asked = Question(question_id="q1", question="How many?", answer_schema={"type": "integer"})
    assert await hermes.store.ask(task, asked) is True
    assert (await call("GET", path)).said["question"]["question"] == "How many?"
    assert await call.refused("POST", f"{path}/answer", {"value": "many"}) == (422, "invalid")
    assert await call.refused("POST", f"{path}/answer", {"value": 5, "question": "q2"}) == (409, "not_taken")
    answered = await call("POST", f"{path}/answer", {"value": 5})
    assert (answered.status, answered.said["id"]) == (200, task.id)
    assert await call.refused("POST", f"{path}/answer", {"value": 6}) == (409, "not_taken")
    told = await call("POST", f"{path}/messages", {"text": "hurry"})
    assert told.status == 201
    assert (await hermes.store.events("s", told.said["seq"] - 1, 1)).events[0].type == "task.message"
    await finish(hermes, task)
    assert await call.refused("POST", f"{path}/messages", {"text": "more"}) == (409, "not_taken")


async def test_what_is_said_comes_into_the_inbox_and_out(hermes: Hermes, call: Caller) -> None:
    assert (await call("GET", "/v1/sessions/s/inbox")).said == {"deliveries": [], "unread": 0}
    waiting = asyncio.create_task(call("GET", "/v1/sessions/s/inbox?wait=60"))
    await asyncio.sleep(0.1)
    said = await call("POST", "/v1/sessions/s/messages", {"text": "hi", "data": {"n": [1, None]}})
    assert (said.status, said.said) == (201, {"seq": 1})
    first = (await asyncio.wait_for(waiting, 5)).said["deliveries"]
    assert [event["data"] for event in first] == [{"text": "hi", "data": {"n": [1, None]}}]
    await say(hermes, "s", 3)
    inbox = await call("GET", "/v1/sessions/s/inbox?limit=2&after=1")
    assert [event["seq"] for event in inbox.said["deliveries"]] == [2, 3]
    assert inbox.said["unread"] == 4
    assert (await call("POST", "/v1/sessions/s/inbox/ack", {"seqs": [1, 2, 99]})).said == {"acked": 2}
    assert (await call("POST", "/v1/sessions/s/inbox/ack", {"seqs": [1, 2]})).said == {"acked": 0}
    assert (await call("GET", "/v1/sessions/s/inbox")).said["unread"] == 2


@only_memory
async def test_a_long_list_is_cut_but_never_empty(
    hermes: Hermes, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_async.relay.http.answer.ANSWER_BYTES", 5_000)
    for size in (2_000, 2_000, 2_000, 9_000):
        await hermes.session("s").submit("echo", "x" * size)
        await hermes.session("s").send_message("x" * size)

    async def seqs(after: int) -> list[int]:
        said = (await call("GET", f"/v1/sessions/s/inbox?after={after}")).said
        return [event["seq"] for event in said["deliveries"]]

    assert [await seqs(0), await seqs(4), await seqs(6)] == [[2, 4], [6], [8]]
    assert len((await call("GET", "/v1/tasks")).said["tasks"]) == 1


async def test_a_snapshot_has_every_task_and_where_to_go_on(hermes: Hermes, call: Caller) -> None:
    tasks = [await new_task(hermes, "s") for _ in range(3)]
    seen = await call("GET", "/v1/sessions/s/snapshot")
    assert seen.said["seq"] == 6
    assert {task["id"] for task in seen.said["tasks"]} == {task.id for task in tasks}


async def test_what_is_foreign_looks_as_if_it_did_not_exist(
    hermes: Hermes, call: Caller, http: aiohttp.ClientSession, relay: Station
) -> None:
    foreign = await new_task(hermes, "theirs")
    absent = (await new_task(hermes, "t")).id[:-4] + "zzzz"
    for task in (foreign.id, absent, "x", "t99-x", "t01-%00", "%F0%9F%98%80"):
        for asked in (
            ("GET", f"/v1/tasks/{task}"),
            ("GET", f"/v1/tasks/{task}/result?wait=60"),
            ("GET", f"/v1/tasks/{task}/events"),
            ("POST", f"/v1/tasks/{task}/cancel"),
        ):
            assert await call.refused(*asked) == (404, "not_found")
    for session in ("theirs", "nobodys", "a/b", "%0A"):
        for asked in (
            ("GET", f"/v1/sessions/{session}/snapshot"),
            ("GET", f"/v1/sessions/{session}/events"),
            ("GET", f"/v1/sessions/{session}/inbox"),
            ("GET", f"/v1/tasks?session={session}"),
            ("POST", f"/v1/sessions/{session}/tasks", {"subagent": "echo", "input": "x"}),
            ("POST", f"/v1/sessions/{session}/messages", {"text": "x"}),
            ("POST", f"/v1/sessions/{session}/inbox/ack", {"seqs": [1]}),
        ):
            assert await call.refused(*asked) == (404, "not_found")
    same = {(await call("GET", f"/v1/tasks/{task}")).said["detail"] for task in (foreign.id, absent)}
    assert len(same) == 1
    assert (await call("GET", "/v1/tasks")).said == {"tasks": []}
    several = Caller(http, relay.url, token("theirs", "t", "s"))
    assert len((await several("GET", "/v1/tasks")).said["tasks"]) == 2
    everything = Caller(http, relay.url, mint(SECRET, sub="ops", sessions="*", ttl=60))
    assert len((await everything("GET", "/v1/tasks")).said["tasks"]) == 2
    assert (await hermes.store.load(foreign.id)) == foreign


@only_memory
async def test_a_session_with_any_name_has_a_path(
    hermes: Hermes, http: aiohttp.ClientSession, relay: Station
) -> None:
    for name, path in (("a/b", "a%2Fb"), ("x/inbox", "x%2Finbox"), ("é ?#%", "%C3%A9%20%3F%23%25")):
        call = Caller(http, relay.url, token(name))
        await say(hermes, name, 1)
        url = f"/v1/sessions/{path}/inbox"
        async with http.get(
            aiohttp.client.URL(relay.url + url, encoded=True), headers=call.headers
        ) as answer:
            assert (await answer.json())["unread"] == 1


@only_memory
async def test_nobody_comes_in_without_a_valid_token(http: aiohttp.ClientSession, relay: Station) -> None:
    forged = mint("y" * 32, sub="x", sessions=["s"], ttl=60)
    for bad in (None, "", "x", forged, token("s", ttl=-5)):
        call = Caller(http, relay.url, bad)
        for asked in (
            ("GET", "/v1/tasks"),
            ("POST", "/v1/sessions/s/messages", {"text": "x"}),
            ("GET", "/metrics"),
        ):
            assert await call.refused(*asked) == (401, "unauthorized")
        assert (await call("GET", "/v1/tasks")).headers["www-authenticate"] == "Bearer"
    basic = {"Authorization": "Basic eDp5"}
    assert (await Caller(http, relay.url, None).refused("GET", "/v1/tasks", headers=basic))[0] == 401


async def test_a_token_that_may_only_hear_changes_nothing(
    hermes: Hermes, http: aiohttp.ClientSession, relay: Station
) -> None:
    task = await new_task(hermes, "s")
    call = Caller(http, relay.url, mint(SECRET, sub="screen", sessions=["s"], ttl=60, read_only=True))
    for path in (f"/v1/tasks/{task.id}", "/v1/tasks", "/v1/sessions/s/inbox", "/v1/sessions/s/events"):
        assert (await call("GET", path)).status == 200
    for path, said in (
        ("/v1/sessions/s/tasks", {"subagent": "echo", "input": "x"}),
        ("/v1/sessions/s/messages", {"text": "x"}),
        ("/v1/sessions/s/inbox/ack", {"seqs": [1]}),
        (f"/v1/tasks/{task.id}/cancel", None),
        (f"/v1/tasks/{task.id}/answer", {"value": 1}),
        (f"/v1/tasks/{task.id}/messages", {"text": "x"}),
    ):
        assert await call.refused("POST", path, said) == (403, "forbidden")
    assert await hermes.store.last_seq("s") == 2


async def test_a_revoked_token_is_refused_and_its_streams_end(
    hermes: Hermes, http: aiohttp.ClientSession, relay: Station
) -> None:
    revoked = token("s")
    call = Caller(http, relay.url, revoked)
    async with call.stream("/v1/sessions/s/events") as frames:
        await hermes.store.revoke_token(verify(SECRET, revoked).jti or "", 60)
        assert await call.refused("GET", "/v1/tasks") == (401, "unauthorized")
        async with asyncio.timeout(5):
            assert [frame.name async for frame in frames] == [None, "auth.expired"]
    assert (await Caller(http, relay.url, token("s"))("GET", "/v1/tasks")).status == 200


@only_memory
async def test_requests_that_last_count_among_the_sockets(
    hermes: Hermes, http: aiohttp.ClientSession
) -> None:
    async with Station(hermes, Limits(per_address=2)) as relay, relay.socket(token("s")):
        call = Caller(http, relay.url, token("s"))
        async with call.stream("/v1/sessions/s/events") as frames:
            await anext(frames)
            stream = {"Accept": "text/event-stream"}
            for path in ("/v1/sessions/s/events?wait=60", "/v1/sessions/s/inbox?wait=60"):
                assert await call.refused("GET", path) == (429, "too_many")
            asked = ("GET", "/v1/sessions/s/events")
            assert await call.refused(*asked, headers=stream) == (429, "too_many")
            assert (await call("GET", "/v1/sessions/s/inbox")).status == 200


@only_memory
async def test_pages_of_other_origins_may_ask_if_they_are_named(
    hermes: Hermes, http: aiohttp.ClientSession
) -> None:
    ours = "https://chat.example"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origins, origin, allowed in (
        ((ours,), ours, ours),
        ((ours,), "https://evil.example", None),
        ((), ours, None),
        (("*",), ours, "*"),
    ):
        async with Station(hermes, origins=origins) as relay:
            call = Caller(http, relay.url, token("s"))
            answer = await call("GET", "/v1/tasks", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed
            preflight = await call("OPTIONS", "/v1/tasks", headers={"Origin": origin, **asked})
            assert (preflight.status == 200) == (allowed is not None)


HOSTILE = [
    (b"", "application/json", 422),
    (b"{", "application/json", 400),
    (b"nonsense", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b'{"text": NaN}', "application/json", 400),
    (b'{"text": "x", "data": Infinity}', "application/json", 400),
    (b'{"text": "x", "data": 1e999}', "application/json", 422),
    (rb'{"text": "\ud800"}', "application/json", 400),
    (b'{"text": "x", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400),
    (b'{"text": "x", "data": ' + b"[" * 150 + b"]" * 150 + b"}", "application/json", 422),
    (b'{"text": "x", "data": ' + b"9" * 10_000 + b"}", "application/json", 400),
    (b'{"text": "nul \\u0000"}', "application/json", 201),
    (b'{"text": 5}', "application/json", 422),
    (b'{"text": "x", "more": 1}', "application/json", 422),
    (b'["text"]', "application/json", 422),
    (b"null", "application/json", 422),
    (b'{"text": "x"}', "text/plain", 415),
    (b'{"text": "x"}', "application/x-www-form-urlencoded", 415),
    (b'{"text": "x"}', "", 415),
    (b'{"text": "x"}', "application/json; charset=utf-8", 201),
    (b'{"text": "' + b"x" * BODY_BYTES + b'"}', "application/json", 413),
]


@only_memory
@pytest.mark.parametrize(("body", "kind", "status"), HOSTILE)
async def test_bodies_of_every_kind(call: Caller, body: bytes, kind: str, status: int) -> None:
    headers = {"Content-Type": kind}
    answer = await call("POST", "/v1/sessions/s/messages", headers=headers, data=body)
    assert answer.status == status
    assert status < 400 or answer.headers["content-type"] == "application/problem+json"
    assert (await call("GET", "/v1/sessions/s/inbox")).said["unread"] == (status == 201)


@only_memory
async def test_a_body_that_never_ends_is_cut_off(call: Caller) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536
            await asyncio.sleep(0)

    kind = {"Content-Type": "application/json"}
    with pytest.raises(aiohttp.ClientError):
        answer = await call("POST", "/v1/sessions/s/messages", headers=kind, data=endless())
        assert answer.status == 413
        raise aiohttp.ClientError


@only_memory
async def test_other_unfit_requests(call: Caller) -> None:
    task = {"subagent": "echo", "input": "x"}
    for asked, wanted in (
        (("GET", "/v1/nothing"), (404, "not_found")),
        (("DELETE", "/v1/tasks"), (405, "method_not_allowed")),
        (("GET", "/v1/tasks?limit=0"), (422, "invalid")),
        (("GET", "/v1/tasks?limit=many"), (422, "invalid")),
        (("GET", "/v1/tasks?status=lost"), (422, "invalid")),
        (("GET", "/v1/sessions/s/inbox?wait=nan"), (422, "invalid")),
        (("GET", "/v1/sessions/s/inbox?wait=61"), (422, "invalid")),
        (("GET", "/v1/sessions/s/events?after=-1"), (422, "invalid")),
        (("POST", "/v1/sessions/s/tasks", {**task, "priority": 10}), (422, "invalid")),
        (("POST", "/v1/sessions/s/tasks", {**task, "subagent": "eko"}), (422, "invalid")),
        (("POST", "/v1/sessions/s/tasks", {**task, "parent": "nobody"}), (422, "invalid")),
        (("POST", "/v1/sessions/s/tasks", {**task, "input": {"txt": "x"}}), (422, "invalid")),
        (("POST", "/v1/sessions/s/tasks", {**task, "idempotency_key": "\n"}), (422, "invalid")),
        (("POST", "/v1/sessions/s/inbox/ack", {"seqs": [1] * 1001}), (422, "invalid")),
    ):
        assert await call.refused(*asked) == wanted
    assert (
        "did you mean 'echo'"
        in (await call("POST", "/v1/sessions/s/tasks", {**task, "subagent": "eko"})).said["detail"]
    )
    assert (await call("DELETE", "/v1/tasks")).headers["allow"] == "GET"
    for accept in ("text/html", "application/json;q=0", "garbage"):
        assert (await call.refused("GET", "/v1/sessions/s/events", headers={"Accept": accept}))[0] == 406


async def test_a_full_queue_says_when_to_come_again(http: aiohttp.ClientSession) -> None:
    limits = GateLimits(max_running=1, max_queued=1)
    store = MemoryStore(limits=limits)
    await store.enlist("w1", Lane.ASYNC, 1, 3600.0)
    hermes = Hermes(Registry(AgentsConfig(limits=limits), [echo]), store, MemoryQueue())
    async with Station(hermes) as relay:
        call = Caller(http, relay.url, token("s"))
        answers = [
            await call("POST", "/v1/sessions/s/tasks", {"subagent": "echo", "input": "x"}) for _ in range(3)
        ]
        assert [answer.status for answer in answers] == [201, 429, 429]
        assert (answers[-1].said["code"], answers[-1].headers["retry-after"]) == ("limit_exceeded", "5")
    await hermes.close()


@only_memory
async def test_a_store_that_is_away_is_told_and_failures_are_not_shown(
    hermes: Hermes, call: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for exc, status, code in (
        (StoreUnavailable("redis://secret@host is away"), 503, "unavailable"),
        (RuntimeError("a secret"), 500, "internal"),
    ):

        async def load(task_id: str, exc: Exception = exc) -> None:
            raise exc

        monkeypatch.setattr(hermes.store, "load", load)
        answer = await call("GET", "/v1/tasks/t01-x")
        assert (answer.status, answer.said["code"]) == (status, code)
        assert "secret" not in answer.said["detail"]
        assert (answer.headers.get("retry-after") == "1") == (status == 503)
    assert "GET /v1/tasks/{task} failed" in caplog.text


@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "is silent"])
async def test_a_redis_that_is_away_is_told_within_three_seconds(
    http: aiohttp.ClientSession, answers: bool
) -> None:
    async with silent_server() as silent:
        port = silent if answers else free_port()
        store = RedisStore(f"redis://127.0.0.1:{port}")
        hermes = Hermes(Registry(AgentsConfig(), [echo]), store, MemoryQueue())
        async with Station(hermes) as relay:
            call = Caller(http, relay.url, token("s"))
            for asked in (
                ("POST", "/v1/sessions/s/tasks", {"subagent": "echo", "input": "x"}),
                ("GET", "/v1/tasks/t01-x/result?wait=60"),
                ("GET", "/v1/sessions/s/events?wait=60"),
                ("GET", "/v1/sessions/s/inbox?wait=60"),
            ):
                began = time.monotonic()
                assert await call.refused(*asked) == (503, "unavailable")
                assert time.monotonic() - began < 3 + BUSY
            health = await call("GET", "/healthz")
            assert (health.status, health.said["status"], health.said["redis"]) == (503, "unavailable", None)
        await hermes.close()


async def test_health_needs_no_token_and_figures_an_operator_s(
    hermes: Hermes, call: Caller, http: aiohttp.ClientSession, relay: Station
) -> None:
    well = await Caller(http, relay.url, None)("GET", "/healthz")
    assert (well.status, well.said["status"], well.said["hears"]) == (200, "ok", True)
    await new_task(hermes, "s")
    assert await call.refused("GET", "/metrics") == (403, "forbidden")
    everything = Caller(http, relay.url, mint(SECRET, sub="ops", sessions="*", ttl=60))
    async with relay.socket(token("s")) as socket:
        await socket.ask("subscribe", {"session": "s"})
        answer = await everything("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert list(text_string_to_metric_families(answer.said))
    samples = dict(line.rsplit(" ", 1) for line in answer.said.splitlines() if not line.startswith("#"))
    assert float(samples["process_resident_memory_bytes"]) > 10_000_000
    for name, value in (
        ('hermes_tasks_admitted{lane="async"}', 1),
        ('hermes_slots{lane="async"}', 10_000),
        ('hermes_attempts_total{agent="research"}', 1),
        ('hermes_wait_seconds_count{agent="research"}', 1),
        ('hermes_tasks_open{status="running"}', 1),
        ("hermes_oldest_waiting_seconds", 0),
        ("hermes_relay_lag_events", 0),
        ("hermes_relay_ack_wait_seconds", 0),
        ("hermes_tasks_waiting", 0),
        ("hermes_relay_sockets", 1),
        ("hermes_relay_subscriptions", 1),
        ("hermes_relay_evictions_total", 0),
        ("hermes_relay_requests_lasting", 0),
    ):
        assert float(samples[name]) == value, name


@only_memory
async def test_whoever_waits_is_answered_when_the_relay_stops(
    hermes: Hermes, http: aiohttp.ClientSession
) -> None:
    task = await new_task(hermes, "s")
    async with Station(hermes) as relay:
        call = Caller(http, relay.url, token("s"))
        paths = [f"/v1/tasks/{task.id}/result", "/v1/sessions/s/inbox", "/v1/sessions/s/events"]
        after = {"after": 10_000}
        waiting = [asyncio.create_task(call("GET", path, params={"wait": 60, **after})) for path in paths]
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        await relay.stop()
        answers = await asyncio.gather(*waiting)
        assert asyncio.get_running_loop().time() - began < 1
        assert [answer.status for answer in answers] == [202, 200, 200]
    assert not background_tasks()
