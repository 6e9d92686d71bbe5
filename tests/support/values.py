"""Tasks and events for tests, with as few words as the test needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from hermes_async.core.ids import new_task_id, new_traceparent
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.events import (
    AnyEvent,
    AppliedData,
    AttemptLostData,
    CallbackData,
    CancelRequestedData,
    CompletedData,
    FailedData,
    MessageData,
    Nothing,
    PartialData,
    QueuedData,
    RejectedData,
    RestoredData,
    RetryingData,
    StartedData,
    UnreadableData,
    task_event,
)
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import apply
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Address, Birth, Lane, Progress, Task
from hermes_async.domain.usage import Usage

_numbers = itertools.count(1)
_ERROR = ErrorInfo(type="ValueError", message="no ❄", traceback="…")
_USAGE = Usage(requests=2, output_tokens=30, cost_usd=0.5)
_CALLBACK = CallbackData(name="told", error=_ERROR)

#: For every type of event, data with which nothing is at its default.
DATA: dict[str, Any] = {
    "task.queued": QueuedData(subagent="echo", parent="boss", parent_task_id="t00-1", priority=7),
    "task.started": StartedData(worker="w1"),
    "task.progress": Progress(progress_percent=40, message="half way ✓"),
    "task.partial": PartialData(name="summary", value={"so": ["far", 1.5, None, True]}),
    "task.message": MessageData(text="hello", data=[1]),
    "task.message_applied": AppliedData(message=7),
    "task.input_required": Question(
        question_id="1-a", question="which?", answer_schema={"type": "string"}, expires_at=9e9, problem="no"
    ),
    "task.resumed": Answer(question_id="1-a", answer={"so": [1]}, by="default"),
    "task.answered": Answer(question_id="1-a", answer="this", by="default"),
    "task.cancel_requested": CancelRequestedData(force=True),
    "task.retrying": RetryingData(error=_ERROR, reason=Reason.TIMEOUT, delay=0.0, failures=1),
    "task.attempt_lost": AttemptLostData(cause="worker_lost", losses=1),
    "task.completed": CompletedData(output={"ü": [1, "two"]}, usage=_USAGE),
    "task.failed": FailedData(reason=Reason.ERROR, error=_ERROR, usage=_USAGE),
    "task.cancelled": Nothing(),
    "task.rejected": RejectedData(reason=Reason.LIMIT_EXCEEDED, error=_ERROR),
    "session.message": MessageData(text="to the parent", data={"a": 1}),
    "session.restored": RestoredData(through=7),
    "session.unreadable": UnreadableData(type="task.newer"),
    "callback.succeeded": CallbackData(name="told"),
    "callback.failed": _CALLBACK,
    "callback.dead": _CALLBACK,
}


def make_task(
    session_id: str = "chat",
    *,
    id: str = "",
    agent: str = "echo",
    input: Any = None,
    options: dict[str, Any] | None = None,
    to: Address | None = None,
    fallback: Address | None = None,
    parent_task_id: str | None = None,
    parent_attempt: int = 0,
    **state: Any,
) -> Task:
    """A queued task, or one in the state that is given."""
    birth = Birth(
        id=id or new_task_id(session_id),
        session_id=session_id,
        subagent=agent,
        input=input if input is not None else {"text": f"number {next(_numbers)}"},
        options=SubagentSpec(id=agent, agent=agent, **(options or {})),
        to=to or Address(),
        fallback=fallback,
        parent_task_id=parent_task_id,
        parent_attempt=parent_attempt,
        traceparent=new_traceparent(),
    )
    return Task(birth=birth, agent=agent, **state)


def make_event(task: Task, type_: str, data: Any = None, *, n: int | str = "") -> AnyEvent:
    """An event of the task's present attempt, with data that suits its type."""
    return task_event(task, type_, data if data is not None else DATA[type_], n=n)


def falling(task: Task) -> AnyEvent:
    """The agent `spare` is to take over."""
    data = RetryingData(error=ErrorInfo(type="E"), delay=0.0, failures=0, agent="spare")
    return make_event(task, "task.retrying", data)


def suspect(task: Task) -> AnyEvent:
    """The process lane is to find out who kills the workers."""
    data = AttemptLostData(cause="worker_lost", losses=2, moved_to=Lane.PROCESS)
    return make_event(task, "task.attempt_lost", data)


def folded(task: Task, events: Iterable[AnyEvent]) -> Task:
    """What a task is by its log alone."""
    mine = [event for event in events if event.task_id == task.id]
    born = Task(birth=task.birth, agent=task.agent, created_at=mine[0].time)
    for event in mine[1:]:
        born = apply(born, event)
    return born
