"""Tasks over HTTP: create, look, wait for the result, cancel."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from hermes_async.core.handle import named
from hermes_async.core.tracing import TraceContext, asking
from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.task import TaskResult, TaskStatus
from hermes_async.relay.http.answer import Json, bounded, described
from hermes_async.relay.http.desk import Reader, Writer
from hermes_async.relay.http.models import Cancel, NewAnswer, NewMessage, NewTask, Posted, TaskRecord, Tasks
from hermes_async.relay.http.problem import problems
from hermes_async.relay.http.strict import StrictRoute
from hermes_async.relay.http.words import Limit, Wait

router = APIRouter(route_class=StrictRoute, tags=["tasks"])


@router.post(
    "/v1/sessions/{session:path}/tasks",
    status_code=201,
    responses={
        201: described(TaskRecord, "a new task", headers={"Location": {"schema": {"type": "string"}}}),
        200: described(TaskRecord, "the task that the idempotency key named before"),
        **problems("conflict", "limit_exceeded"),
    },
)
async def create_task(
    visitor: Writer,
    session: str,
    task: NewTask,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    traceparent: Annotated[str, Header()] = "",
    tracestate: Annotated[str, Header()] = "",
) -> Response:
    """Start a task in a session; it is part of the trace that the headers name."""
    if task.idempotency_key is not None and idempotency_key not in (None, task.idempotency_key):
        raise InvalidInput("the header Idempotency-Key and the body name two keys: give one")
    key = idempotency_key if task.idempotency_key is None else task.idempotency_key
    there = visitor.session(session, task.parent)
    with asking(TraceContext.read(traceparent, tracestate)):
        handle = await there.submit(task.subagent, task.input, priority=task.priority, idempotency_key=key)
    record = await handle.task()
    headers = {"location": f"/v1/tasks/{record.id}"}
    return Json(record.as_json(), 200 if handle.repeated else 201, headers)


@router.get("/v1/tasks", responses={200: described(Tasks, "the token's tasks that match, newest first")})
async def list_tasks(
    visitor: Reader,
    session: Annotated[str | None, Query(max_length=200)] = None,
    status: TaskStatus | None = None,
    agent: Annotated[str | None, Query(max_length=200)] = None,
    limit: Limit = 50,
) -> Response:
    """Return tasks of the sessions that the token names, or of one of them."""
    asked = visitor.sessions() if session is None else [visitor.session(session).id]
    hermes = visitor.desk.hermes
    found = await asyncio.gather(
        *(hermes.tasks(session_id=each, status=status, agent=agent, limit=limit) for each in asked)
    )
    newest = sorted(chain.from_iterable(found), key=lambda task: task.created_at, reverse=True)
    return Json({"tasks": bounded([task.as_json() for task in newest[:limit]])})


@router.get(
    "/v1/tasks/{task}",
    responses={200: described(TaskRecord, "the record as it is now"), **problems("unreadable")},
)
async def get_task(visitor: Reader, task: str) -> Response:
    """Return the record of a task."""
    return Json((await visitor.task(task)).as_json())


@router.get(
    "/v1/tasks/{task}/result",
    responses={
        200: described(TaskResult, "how the task ended"),
        202: described(TaskRecord, "it has not ended yet: the record as it is now"),
        **problems("draining", "too_many", "unreadable"),
    },
)
async def get_result(visitor: Reader, task: str, wait: Wait = 0.0) -> Response:
    """Return how a task ended; wait for it, if it has not, for as long as you like."""
    record = await visitor.task(task)
    if not record.status.is_terminal and wait:
        handle = await visitor.handle(task)
        with visitor.lasts(wait):
            record = await handle.ended()
    if record.status.is_terminal:
        return Json(TaskResult.of(record).model_dump(mode="json"))
    return Json((await visitor.task(task)).as_json(), 202)


@router.post("/v1/tasks/{task}/cancel", responses={200: described(TaskRecord, "the record as it is now")})
async def cancel_task(visitor: Writer, task: str, how: Cancel | None = None) -> Response:
    """Ask a task to stop; one that has ended stays as it is."""
    handle = await visitor.handle(task)
    asked = how or Cancel()
    await handle.cancel(force=asked.force, cascade=asked.cascade)
    return Json((await named(visitor.desk.hermes.journal, handle.id)).as_json())


@router.post(
    "/v1/tasks/{task}/answer",
    responses={
        200: described(TaskRecord, "it counts: the record as it is now"),
        **problems("not_taken", "unreadable"),
    },
)
async def answer_task(visitor: Writer, task: str, said: NewAnswer) -> Response:
    """Answer what a task asks; the first answer counts."""
    handle = await visitor.handle(task)
    await handle.answer(said.value, said.question)
    return Json((await handle.task()).as_json())


@router.post(
    "/v1/tasks/{task}/messages",
    status_code=201,
    responses={201: described(Posted, "the task will read it"), **problems("not_taken", "unreadable")},
)
async def tell_task(visitor: Writer, task: str, message: NewMessage) -> Response:
    """Say something to a task, which reads it when it next looks."""
    handle = await visitor.handle(task)
    return Json({"seq": await handle.send(message.text, message.data)}, 201)
