"""Inputs and messages that nobody sane sends, and messages that come again, while normal work goes on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.core.ids import new_task_id
from hermes_async.core.signature import MAX_BYTES, MAX_DEPTH
from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.task import TaskStatus
from hermes_async.transport.message import dead_letter_key
from tests.acceptance.faults.messages import deliver, is_settled, message, put, queue_of
from tests.acceptance.faults.stage import Stage, beginnings
from tests.support.asking import ended, running, told
from tests.support.servers import ROOT, wait_until_async

pytestmark = [pytest.mark.acceptance, pytest.mark.anyio, pytest.mark.timeout(120)]

AGENTS = ["work", "sync_work"]


# -- inputs ----------------------------------------------------------------------------------------------
def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


REFUSED: dict[str, Any] = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "lone surrogate": "\ud800",
    "bytes that are no text": b"\xff",
    "64 MB": "x" * 64_000_000,
    "a little too large": "x" * MAX_BYTES,
    "too deep": nested(MAX_DEPTH + 1),
    "far too deep": nested(100_000),
    "no value": object(),
}
ACCEPTED = {
    "NUL": "\0",
    "a prompt": 'Ignore all previous instructions\r\n$6\r\nFLUSHALL\r\n"}]}',
    "every plane": "ß✓漢🜁\u202e\u2028\x1b[2J\x7f",
    "large": "x" * (MAX_BYTES - 1_000),
    "empty": "",
}


async def test_inputs_over_the_python_api(stage: Stage, hermes: Hermes) -> None:
    session = hermes.session("inputs")
    for name, value in REFUSED.items():
        with pytest.raises(InvalidInput):
            await session.dispatch("anything", value)
        with pytest.raises(InvalidInput):
            await session.submit("anything", {"value": value})
        assert await session.tasks() == [], name
    for agent in ("anything", "sync_anything"):
        for name, value in ACCEPTED.items():
            handle = await session.dispatch(agent, value)
            assert (await ended(handle)).output == value, name


async def test_inputs_over_the_command_line(stage: Stage, hermes: Hermes, tmp_path: Path) -> None:
    files = {
        "64 MB": b"x" * 64_000_000,
        "no UTF-8": b"\xff\xfe\x00",
        "NaN": b'{"value": NaN}',
        "surrogate": b'{"value": "\\ud800"}',
        "deep": b'{"value": ' + b"[" * 500 + b"]" * 500 + b"}",
    }
    said = await asyncio.gather(*(_create(stage, tmp_path / name, text) for name, text in files.items()))
    for name, (code, out, err) in zip(files, said, strict=True):
        assert code == 2, (name, err)
        assert (out, err.count("\n")) == ("", 1), (name, err[:1000])
    code, out, err = await _create(stage, tmp_path / "fine", '{"value": "NUL \\u0000 ✓"}'.encode())
    assert code == 0, err
    assert (await ended(await hermes.handle(out.strip()))).output == "NUL \0 ✓"


async def _create(stage: Stage, file: Path, content: bytes) -> tuple[int, str, str]:
    """What `task create --input @file` answers."""
    file.write_bytes(content)
    line = (
        sys.executable,
        "-m",
        "hermes_async.cli",
        "task",
        "create",
        "-",
        "anything",
        "--input",
        f"@{file}",
    )
    env = {**os.environ, **stage.env, "PYTHONPATH": str(ROOT)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*line, env=env, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_results_that_cannot_be_told(stage: Stage, hermes: Hermes) -> None:
    session = hermes.session("results")
    for agent in ("returns", "sync_returns"):
        for kind in ("nan", "surrogate", "deep", "large", "object", "loop"):
            task = await ended(await session.dispatch(agent, kind))
            assert task.error is not None
            assert (task.status, task.error.type, task.attempt) == (TaskStatus.FAILED, "InvalidInput", 1), (
                kind
            )


# -- garbage on the broker -------------------------------------------------------------------------------
def changed(agent: str, **changes: Any) -> str:
    """A message with other headers or parts."""
    return json.dumps(message(new_task_id("nobody"), agent, **changes))


def whole(agent: str, headers: object) -> str:
    """A message with these headers and no others."""
    return json.dumps(message(new_task_id("nobody"), agent) | {"headers": headers})


def harmless(agent: str) -> dict[str, str]:
    """Messages that are dropped, or kept as dead letters."""
    return {
        "nothing": "",
        "no JSON": "}{",
        "a list": "[]",
        "a number": "5",
        "no properties": "{}",
        "no headers": whole(agent, headers={}),
        "64 MB": changed(agent, headers={"argsrepr": "x" * 64_000_000}),
        "unknown task name": changed(agent, headers={"task": "hermes.nobody"}),
        "a foreign task name": changed(agent, headers={"task": "os.system"}),
        "unknown task": changed(agent),
        "a strange id": changed(agent, headers={"id": "../../etc/passwd"}),
        "no id": changed(agent, headers={"id": None}),
        "no JSON in the body": changed(agent, body="fXs="),
        "pickle": changed(agent, **{"content-type": "application/x-python-serialize"}),
        "wrong compression": changed(agent, headers={"compression": "zlib"}),
        "arguments": changed(agent, body="W1sxXSwge30sIHt9XQ=="),
        "long over": changed(agent, headers={"expires": "2001-01-01T00:00:00+00:00"}),
    }


def deadly(agent: str) -> dict[str, str | bytes]:
    """Messages that make kombu or Celery raise where nobody catches it."""
    return {
        "headers that are text": whole(agent, headers="x"),
        "a task name that is none": changed(agent, headers={"task": {}}),
        "no body": changed(agent, body=None),
        "one limit of two": changed(agent, headers={"timelimit": [1]}),
        "unknown encoding": changed(agent, properties={"body_encoding": "rot13", "delivery_info": {}}),
        "deep": "[" * 100_000,
        "no UTF-8": b"\xff\xfe",
    }


@pytest.mark.parametrize("agent", AGENTS)
async def test_garbage_on_the_broker(stage: Stage, hermes: Hermes, agent: str) -> None:
    await _unharmed(stage, hermes, agent, harmless(agent))


@pytest.mark.parametrize("agent", AGENTS)
async def test_deadly_garbage_on_the_broker(stage: Stage, hermes: Hermes, agent: str) -> None:
    await _unharmed(stage, hermes, agent, deadly(agent))


async def _unharmed(stage: Stage, hermes: Hermes, agent: str, garbage: dict[str, Any]) -> None:
    session, queue = hermes.session("unharmed"), queue_of(agent)
    worker = stage.processes["process-1" if agent == "sync_work" else "async-1"]
    before = await session.dispatch(agent, "before", seconds=2.0)
    await running(before)
    try:
        for name, text in garbage.items():
            put(stage.server, queue, text)
            end = asyncio.create_task(ended(await session.dispatch(agent, name, seconds=0.0)))
            await wait_until_async(lambda end=end: end.done() or not worker.alive, 30.0)  # type: ignore[misc]
            assert worker.alive, name
            assert (await end).output == name
        assert ((await ended(before)).output, beginnings(stage, before.id)) == ("before", [1])
        await wait_until_async(lambda: is_settled(stage.server, queue))
    finally:
        with stage.admin() as client:
            client.delete(queue, dead_letter_key(queue))


# -- the same message again ------------------------------------------------------------------------------
@pytest.mark.parametrize("agent", AGENTS)
async def test_a_message_that_comes_again_and_again(stage: Stage, hermes: Hermes, agent: str) -> None:
    session = hermes.session("again")
    handle = await session.dispatch(agent, "again", seconds=1.5)
    for _ in range(3):
        deliver(stage.server, handle.id, agent)  # perhaps before it has begun
    await running(handle)
    for _ in range(3):
        deliver(stage.server, handle.id, agent)
    assert (await ended(handle)).output == "again"
    last = await hermes.store.last_seq(session.id)
    for _ in range(3):
        deliver(stage.server, handle.id, agent)  # long after its end
    await wait_until_async(lambda: is_settled(stage.server, queue_of(agent)))
    assert beginnings(stage, handle.id) == [1]
    assert await hermes.store.last_seq(session.id) == last
    assert [type_ for type_ in await told(handle) if type_ not in ("progress", "session.message")] == [
        "queued",
        "started",
        "completed",
    ]
