"""One trace for everything that a task is, over real processes, real brokers and OTLP over real HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hermes_async.domain.spans import Span, stretches
from hermes_async.domain.task import Lane
from tests.support import traced
from tests.support.asking import ended
from tests.support.model import ScriptedModel, call, say
from tests.support.rabbitmq import RabbitServer, running_rabbitmq
from tests.support.receiver import Receiver, hang
from tests.support.servers import Process, free_port, wait_until_async
from tests.support.sink import Sink, named, paths, sink
from tests.support.site import Site, gone, site_over, until_said

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio]

CONFIG = """\
agents:
  boss:
    type: conversational
    subagents:
      - id: lead
        agent: lead
        callbacks: {on_complete: "tests.support.traced:told"}
        webhook: {url: "WEBHOOK", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
"""
MODULES = {
    "HERMES_MODULES": "tests.support.traced,tests.support.agents",
    "HERMES_CALLBACK_MODULES": "tests.support.traced",
}


@pytest.fixture
async def spans(anyio_backend: str) -> AsyncIterator[Sink]:
    async with sink() as found:
        yield found


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    yield from running_rabbitmq(tmp_path_factory.mktemp("rabbitmq"))


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> str:
    """The URL of what carries the tasks, if it is not the Redis of the state."""
    return request.getfixturevalue("rabbit").url if getattr(request, "param", "") == "rabbitmq" else ""


over_both = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)


@pytest.fixture
async def site(
    redis_url: str,
    broker: str,
    tmp_path: Path,
    spawn: Callable[..., Process],
    anyio_backend: str,
    spans: Sink,
) -> AsyncIterator[Site]:
    """Workers that send their spans; the test itself traces nothing."""
    modules = ("traced", "agents")
    async with site_over(redis_url, tmp_path, spawn, broker=broker, modules=modules) as site:
        site.env = {**site.env, **MODULES, **spans.env}
        yield site


# -- one trace --------------------------------------------------------------------------------------------
@over_both
async def test_one_trace_from_the_parents_span_to_callback_and_webhook(
    redis_url: str, broker: str, tmp_path: Path, spawn: Callable[..., Process], spans: Sink
) -> None:
    async with Receiver() as receiver:
        config = CONFIG.replace("WEBHOOK", receiver.url)
        env = {
            "HERMES_CONFIG": str(tmp_path / "agents.yaml"),
            "HERMES_TASK_QUEUE": broker or redis_url,
            "HERMES_STATE": redis_url,
            "HERMES_WEBHOOK_ALLOW": receiver.place,
            **MODULES,
            **spans.env,
        }
        (tmp_path / "agents.yaml").write_text(config)
        cli = [sys.executable, "-m", "hermes_async.cli"]
        workers = [
            spawn([*cli, "worker", "--lane", lane, "--concurrency", "2"], env, lane)
            for lane in ("async", "process", "callbacks")
        ]
        for worker, ready in zip(workers, ("ready.", "ready.", "callbacks: "), strict=True):
            await until_said(worker, ready)
        turn = spawn([sys.executable, "-m", "tests.support.traced", "lead"], env, "turn")
        await until_said(turn, "chips chips")
        task_id, trace_id, *_ = turn.log.split()
        found = await spans.until(trace_id, "telling", "webhook", "turn", "process lead")
        top = "turn > send lead"
        agent = f"{top} > process lead > invoke_agent lead"
        children = [
            f"{agent} > plan > send {name}{below}"
            for name in ("think", "think_in_child")
            for below in (
                "",
                f" > wait {name}",
                f" > process {name}",
                f" > process {name} > invoke_agent {name}",
                f" > process {name} > invoke_agent {name} > step",
            )
        ]
        assert paths(found) == sorted(
            [
                "turn",
                top,
                f"{top} > wait lead",
                f"{top} > process lead",
                agent,
                f"{agent} > plan",
                *children,
                f"{top} > process lead > callback tests.support.traced:told",
                f"{top} > process lead > callback tests.support.traced:told > telling",
                f"{top} > process lead > webhook",
            ]
        )
        assert all(span.error is None for span in found)
        assert set(spans.times.values()) == {1}
        assert_attributes(found, task_id, "rabbitmq" if broker else "redis")
        assert [post.headers["traceparent"][3:35] for post in receiver.posts] == [trace_id]


async def test_the_turns_of_a_chat_begin_the_traces_of_what_they_delegate(site: Site, spans: Sink) -> None:
    boss = "{type: conversational, model: gpt-4o-mini, subagents: [{id: think, agent: think}]}"
    config = Path(site.env["HERMES_CONFIG"])
    config.write_text(f"agents:\n  boss: {boss}\n")
    with ScriptedModel(
        call("delegate", subagent="think", input="chips"), say("Begun."), say("Done.")
    ) as model:
        site.env = {**site.env, **model.env}
        await site.workers(Lane.ASYNC)
        chat = site.run([sys.executable, "-m", "tests.support.traced", "chat"], "chat")
        await until_said(chat, "both turns ended")
        (task,) = await site.session.tasks()
        found = await spans.until(task.birth.trace_id, "invoke_agent boss", "step", "process think")
    turn = "invoke_agent boss"
    assert paths(found) == sorted(
        [
            turn,
            *[f"{turn} > chat gpt-4o-mini"] * 2,
            f"{turn} > send think",
            f"{turn} > send think > wait think",
            f"{turn} > send think > process think",
            f"{turn} > send think > process think > invoke_agent think",
            f"{turn} > send think > process think > invoke_agent think > step",
        ]
    )


def assert_attributes(found: list[Span], task_id: str, system: str) -> None:
    """Names are OpenTelemetry's; what was said to the agent, and what it said, is nowhere."""
    (process,) = named(found, "process lead")
    assert process.kind == "consumer"
    assert process.attributes["messaging.system"] == system
    assert process.attributes["messaging.destination.name"] == "hermes.async"
    assert process.attributes["messaging.message.id"] == task_id
    (agent,) = named(found, "invoke_agent lead")
    assert agent.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert agent.attributes["gen_ai.agent.name"] == "lead"
    assert agent.attributes["gen_ai.conversation.id"] == "chat"
    (wait,) = named(found, "wait lead")
    assert wait.end == process.start
    (plan,) = named(found, "plan")
    assert (plan.task_id, plan.attempt) == (task_id, 1)
    assert "chips" not in json.dumps([span.model_dump() for span in found])


@over_both
async def test_attempts_waits_and_retries_are_in_one_trace(site: Site, spans: Sink) -> None:
    await site.workers(Lane.ASYNC)
    handle = await site.dispatch(traced.stumble)
    assert await asyncio.wait_for(handle, 20) == 2
    found = await spans.until(handle.trace_id, *["process stumble"] * 2)
    first, second = named(found, "process stumble")
    assert first.error == "ValueError: not yet"
    assert (second.error, second.attributes["hermes.task.status"]) == (None, "completed")
    waits = named(found, "wait stumble")
    assert waits[1].end == second.start
    assert first.start < waits[1].start < second.start
    assert not [path for path in paths(found) if "?" in path]


# -- crashes ----------------------------------------------------------------------------------------------
@over_both
@pytest.mark.parametrize("lane", list(Lane))
async def test_a_killed_worker_leaves_a_complete_trace_with_both_attempts(
    site: Site, spans: Sink, lane: Lane
) -> None:
    (victim,) = await site.workers(lane)
    agent = traced.linger if lane is Lane.ASYNC else traced.linger_in_child
    handle = await site.dispatch(agent)
    await site.running(handle)
    await spans.until(handle.trace_id, "first")  # it was sent before the kill
    before = time.time()
    for process in [psutil.Process(victim.pid), *psutil.Process(victim.pid).children(recursive=True)]:
        process.kill()
    await site.workers(lane)
    assert await asyncio.wait_for(handle, 30) == 2
    name = agent.name
    found = await spans.until(handle.trace_id, *[f"process {name}"] * 2, *["first"] * 2, "second")
    below = f"send {name} > process {name} > invoke_agent {name}"
    assert paths(found) == sorted(
        [
            f"send {name}",
            *[f"send {name} > wait {name}"] * 2,
            *[f"send {name} > process {name}"] * 2,
            *[below] * 2,
            *[f"{below} > first"] * 2,
            f"{below} > second",  # that of the first attempt was never ended
        ]
    )
    lost, completed = named(found, f"process {name}")
    assert lost.error == "worker_lost: the attempt was lost"
    assert (lost.attempt, completed.attempt) == (1, 2)
    assert lost.start < before < lost.end
    # Its end is told by the clock of whoever has just written it, the next start by that of the record.
    assert lost.end == pytest.approx(completed.start, abs=0.1) or lost.end < completed.start
    first = min(named(found, "first"), key=lambda span: span.start)
    assert first.parent_id == min(named(found, f"invoke_agent {name}"), key=lambda span: span.start).span_id
    assert set(spans.times.values()) == {1}


async def test_a_killed_process_of_the_pool_is_seen_at_once(site: Site, spans: Sink) -> None:
    (worker,) = await site.workers(Lane.PROCESS)
    handle = await site.dispatch(traced.linger_in_child)
    await site.running(handle)
    await spans.until(handle.trace_id, "first")
    for child in psutil.Process(worker.pid).children():
        child.kill()
    assert await asyncio.wait_for(handle, 30) == 2
    found = await spans.until(handle.trace_id, *["process linger_in_child"] * 2)
    assert [span.error is not None for span in named(found, "process linger_in_child")] == [True, False]
    assert not [path for path in paths(found) if "?" in path]


async def test_what_a_killed_process_took_along_leaves_no_orphan_in_a_waterfall(
    site: Site, spans: Sink
) -> None:
    (victim,) = await site.workers(Lane.ASYNC)
    handle = await site.dispatch(traced.lead, "x")  # its `think_in_child` waits for ever
    await spans.until(handle.trace_id, "step", "plan")
    victim.kill()
    await handle.cancel()
    await site.workers(Lane.ASYNC)
    await asyncio.wait_for(ended(handle), 30)
    found = await spans.until(handle.trace_id, "process lead")
    assert [row.name for row in stretches(found, handle.id) if row.depth == 0] == ["send lead"]


# -- a collector that is away, and none at all ------------------------------------------------------------
@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_collector_that_is_away_costs_tasks_nothing(site: Site, how: str) -> None:
    async with Receiver() as receiver:
        receiver.then(*[hang] * 1_000)
        place = receiver.place if how == "hangs" else f"127.0.0.1:{free_port()}"
        site.env = {**site.env, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{place}"}
        await assert_that_tasks_do_not_care(site)
        assert bool(receiver.connections) == (how == "hangs")


async def assert_that_tasks_do_not_care(site: Site) -> None:
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS)
    handles = [await site.dispatch(agent, "x") for agent in (traced.think, traced.think_in_child) * 5]
    assert await asyncio.wait_for(asyncio.gather(*handles), 30) == ["x"] * 10
    began = time.monotonic()
    for worker in workers:
        worker.signal(signal.SIGTERM)
    for worker in workers:
        await gone(worker)
    assert time.monotonic() - began < 10
    for worker in workers:
        assert "Traceback" not in worker.log


async def test_what_is_not_sent_yet_is_sent_when_a_worker_stops(site: Site, spans: Sink) -> None:
    site.env = {**site.env, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS)
    handles = [await site.dispatch(agent, "x") for agent in (traced.think, traced.think_in_child)]
    assert await asyncio.wait_for(asyncio.gather(*handles), 30) == ["x", "x"]
    assert spans.of(handles[0].trace_id) == []
    for worker in workers:
        worker.signal(signal.SIGTERM)
    for handle, name in zip(handles, ("think", "think_in_child"), strict=True):
        await spans.until(handle.trace_id, "step", f"process {name}", f"send {name}")


BLOCKER = """\
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


async def test_without_opentelemetry_all_works_and_one_sentence_says_so(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    modules = {"HERMES_MODULES": "tests.support.agents", "PYTHONPATH": f"{tmp_path}"}
    site.env = {**site.env, **modules}
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS)
    handle = await site.dispatch("echo", "x")
    assert await asyncio.wait_for(handle, 20) == "x"
    for worker in workers:
        assert "pip install 'hermes_async[otel]'" in worker.log
        assert "Traceback" not in worker.log


# -- logs -------------------------------------------------------------------------------------------------
async def test_log_lines_of_agents_say_to_which_attempt_they_belong(site: Site) -> None:
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS)
    handle = await site.dispatch(traced.lead, "chips")
    await asyncio.wait_for(handle, 20)
    ids = f" task={handle.id} attempt=1 trace={handle.trace_id}"
    await wait_until_async(lambda: f"leading chips{ids}" in workers[0].log)
    children = {task.agent: task.id for task in await site.session.tasks()}
    for worker, agent in zip(workers, ("think", "think_in_child"), strict=True):
        said = f"thinking of chips task={children[agent]} attempt=1 trace={handle.trace_id}"
        await wait_until_async(lambda said=said, worker=worker: said in worker.log)
    assert f"thinking in a thread task={children['think']} attempt=1" in workers[0].log


async def test_log_lines_may_be_json(site: Site) -> None:
    site.env = {**site.env, "HERMES_LOG_FORMAT": "json"}
    workers = await site.workers(Lane.ASYNC, Lane.PROCESS)
    for worker, agent in zip(workers, (traced.think, traced.think_in_child), strict=True):
        handle = await site.dispatch(agent, "chips")
        await asyncio.wait_for(handle, 20)
        await until_said(worker, "thinking of chips")
        said = next(line for line in records(worker) if line["message"] == "thinking of chips")
        assert said["level"] == "INFO"
        assert said["logger"] == "tests.support.traced"
        assert (said["task_id"], said["attempt"]) == (handle.id, 1)
        assert (said["session_id"], said["trace_id"]) == ("chat", handle.trace_id)


def records(worker: Process) -> list[dict[str, Any]]:
    """The log, of which every line is a record (Celery greets before there is a log)."""
    lines = [line for line in worker.log.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]
