"""Calls that are due, and receivers for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hermes_async.core.registry import Registry
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec, Webhook
from hermes_async.domain.callback import Call, Callback, CallbackKind, callback_id
from hermes_async.domain.task import TaskStatus
from tests.support.receiver import Receiver
from tests.support.values import make_task


@pytest.fixture
async def receiver(anyio_backend: str) -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def make_call(failures: int = 0, parent: str = "boss", **state: Any) -> Call:
    """A webhook of a task that has ended."""
    said = {"status": TaskStatus.COMPLETED, "output": "42", "attempt": 1, "finished_at": 1_700_000_000.5}
    task = make_task(options={"webhook": {"url": "https://example.com/hook"}}, **{**said, **state})
    task = task.model_copy(update={"birth": task.birth.model_copy(update={"parent": parent})})
    row = Callback(
        id=callback_id(task.id, CallbackKind.WEBHOOK),
        kind=CallbackKind.WEBHOOK,
        name="https://example.com/hook",
        session_id=task.session_id,
        task_id=task.id,
        seq=3,
        failures=failures,
    )
    return Call(row, task, fence=1)


def knowing(url: str, secret: str | tuple[str, ...] | None = None) -> Registry:
    """A registry in which the subagent `echo` of `boss` has a webhook."""
    echo = SubagentSpec(id="echo", agent="echo", webhook=Webhook(url=url, secret=secret))
    return Registry(AgentsConfig(agents={"boss": AgentSpec(subagents=(echo,)), "echo": AgentSpec()}))
