"""Six tools for a model: what they answer, to whatever it asks for."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.delegation import Delegation
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.core.subagent import subagent
from hermes_async.testing import LocalHermes
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def research(ctx: TaskContext, topic: str) -> str:
    """Find and weigh
    sources on a topic."""
    ctx.progress(40, "reading")
    return f"{topic} is good"


@subagent
async def survey(ctx: TaskContext, package: str, *, kind: Literal["fast", "full"] = "fast") -> dict[str, str]:
    """Measure a package."""
    return {"package": package, "kind": kind}


@subagent
async def asks(ctx: TaskContext) -> list[Any]:
    """Ask for a number and then for a word, and return what was said meanwhile, too."""
    number = await ctx.ask("which number?", schema=int)
    word = await ctx.ask("which word?", schema=str)
    return [number, word, *(message.text for message in await ctx.messages())]


@subagent
async def rambles(ctx: TaskContext) -> str:
    return "0123456789" * 100


@subagent
async def breaks(ctx: TaskContext) -> None:
    raise ValueError("the disk is " + "full " * 1000)


@pytest.fixture
async def hermes(anyio_backend: str) -> AsyncIterator[Hermes]:
    async with LocalHermes(research, survey, asks, rambles, breaks) as hermes:
        yield hermes


@pytest.fixture
def session(hermes: Hermes) -> Session:
    return hermes.session("chat")


@pytest.fixture
def tools(session: Session) -> Delegation:
    return Delegation(session)


async def call(tools: Delegation, name: str, /, **arguments: Any) -> Any:
    return json.loads(await tools.call(name, json.dumps(arguments)))


async def until(tools: Delegation, task_id: str, status: str, question: str | None = None) -> Any:
    """Check a task until it stands there, and return what was said of it."""
    told: Any = None

    async def stands() -> bool:
        nonlocal told
        told = await call(tools, "check", task_id=task_id)
        asked = told.get("question", {}).get("question")
        return told["status"] == status and question in (None, asked)

    await wait_until_async(stands)
    return told


async def test_delegate_answers_at_once_and_the_task_goes_its_way(tools: Delegation) -> None:
    began = time.perf_counter()
    told = await call(tools, "delegate", subagent="research", input="tea")
    assert time.perf_counter() - began < 0.5
    assert (told["subagent"], told["status"]) == ("research", "queued")
    assert "You will be told" in told["note"]
    done = await until(tools, told["task_id"], "completed")
    assert done == {
        "task_id": told["task_id"],
        "subagent": "research",
        "status": "completed",
        "output": "tea is good",
    }
