"""Event streams over HTTP: the same log and the same `seq`, pushed (SSE) or asked for (long poll)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response

from hermes_async.relay.http.answer import Json, described
from hermes_async.relay.http.desk import Reader, Visitor
from hermes_async.relay.http.models import Events
from hermes_async.relay.http.negotiation import chosen
from hermes_async.relay.http.problem import problems
from hermes_async.relay.http.sse import MEDIA_TYPE, EventStream
from hermes_async.relay.http.strict import StrictRoute
from hermes_async.relay.http.words import After, Limit, Wait
from hermes_async.relay.tail import BATCH_EVENTS, Portion, Tail, Topic
from hermes_async.relay.window import Windows
from hermes_async.relay.wire import Portrait

router = APIRouter(route_class=StrictRoute, tags=["events"])

_SSE_EXAMPLE = 'id: 1\\nevent: task.queued\\ndata: {"seq": 1, "type": "task.queued", "...": "..."}\\n\\n'
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: described(
        Events,
        "what comes next: at once, or as a stream for those who accept `text/event-stream`",
        content={MEDIA_TYPE: {"schema": {"type": "string"}, "example": _SSE_EXAMPLE}},
    ),
    204: {"description": "as a stream only: the task is over, and all of it was told before"},
    **problems("not_acceptable", "draining", "too_many"),
}


class Place:
    """Where in a log to begin; a browser that connects again says it in `Last-Event-ID`."""

    def __init__(
        self,
        after: After = 0,
        last_event_id: Annotated[str | None, Header(pattern="^[0-9]{0,20}$")] = None,
    ) -> None:
        self.after = min(int(last_event_id), 2**53) if last_event_id else after


class Manner:
    """How the news are to come."""

    def __init__(
        self,
        limit: Limit = BATCH_EVENTS,
        wait: Wait = 0.0,
        accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
    ) -> None:
        self.limit = limit
        self.wait = wait
        self.streams = chosen(accept, ("application/json", MEDIA_TYPE)) == MEDIA_TYPE


Where = Annotated[Place, Depends()]
How = Annotated[Manner, Depends()]


@router.get("/v1/sessions/{session:path}/events", responses=_ANSWERS)
async def get_session_events(visitor: Reader, session: str, place: Where, how: How) -> Response:
    """Return a session's events with a `seq` beyond `after`; a stream goes on for ever."""
    return await _news(visitor, Topic(visitor.session(session).id), place, how)


@router.get("/v1/tasks/{task}/events", responses=_ANSWERS)
async def get_task_events(visitor: Reader, task: str, place: Where, how: How) -> Response:
    """Return a task's events with a `seq` beyond `after`; a stream ends with the task."""
    found = await visitor.task(task)
    return await _news(visitor, Topic(found.session_id, found.id), place, how)


async def _news(visitor: Visitor, topic: Topic, place: Place, how: Manner) -> Response:
    tail = Tail(visitor.desk.windows.store, topic, place.after, how.limit)
    portion = await _at_once(tail)
    if how.streams:
        over = portion is not None and portion.end and not portion.events
        return Response(status_code=204) if over else EventStream(visitor, tail, portion)
    if portion is None and how.wait:
        with visitor.lasts(how.wait):
            async with aclosing(_in_time(tail, visitor.desk.windows)) as news:
                portion = await anext(news)  # kept, should the time run out while the reader is let go
    batch = (portion or Portion(topic)).batch()
    said = {name: value for name, value in batch.items() if name in Events.model_fields}
    return Json({**said, "snapshot": await _whole(tail, batch["snapshot"]), "after": tail.after})


async def _at_once(tail: Tail) -> Portion | None:
    """Return the first portion of what is in the log already, if anything is."""
    while not tail.caught_up:
        portion = await tail.next(0)
        if portion is not None:
            return portion
    return None


async def _in_time(tail: Tail, windows: Windows) -> AsyncGenerator[Portion, None]:
    """Yield portions as they come."""
    async with windows.over(tail.topic.session_id, tail) as window:
        while True:
            portion = await tail.next(window.reader.seq, window)
            if portion is not None:
                yield portion
            elif tail.caught_up:
                await window.reader.beyond(tail.known)


async def _whole(tail: Tail, part: Portrait | None) -> dict[str, Any] | None:
    """Return the whole of a snapshot that comes in parts."""
    if part is None:
        return None
    seq, tasks = part["seq"], [*part["tasks"]]
    while part is not None and part["more"]:
        portion = await tail.next(0)
        part = portion.snapshot if portion else None
        tasks += part["tasks"] if part else []
    return {"seq": seq, "tasks": tasks}
