"""Sessions over HTTP: what to say in them, how they are, and their inbox."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.responses import Response

from hermes_async.core.feed import Feed
from hermes_async.core.session import Delivery, Session
from hermes_async.relay.http.answer import Json, bounded, described
from hermes_async.relay.http.desk import Reader, Writer
from hermes_async.relay.http.models import Ack, Acked, Deliveries, NewMessage, Posted, Snapshot
from hermes_async.relay.http.problem import problems
from hermes_async.relay.http.strict import StrictRoute
from hermes_async.relay.http.words import After, Limit, Wait

router = APIRouter(route_class=StrictRoute, tags=["sessions"])


@router.post(
    "/v1/sessions/{session:path}/messages",
    status_code=201,
    responses={201: described(Posted, "it is in the session's log and in its inbox")},
)
async def send_message(visitor: Writer, session: str, message: NewMessage) -> Response:
    """Say something in a session; it reaches the parent wherever it listens."""
    seq = await visitor.session(session).send_message(message.text, message.data)
    return Json({"seq": seq}, 201)


@router.get("/v1/sessions/{session:path}/snapshot", responses={200: described(Snapshot, "all its tasks")})
async def get_snapshot(visitor: Reader, session: str) -> Response:
    """Return the tasks of a session, and the `seq` after which to follow its events."""
    seen = await visitor.desk.hermes.store.snapshot(visitor.session(session).id)
    return Json({"seq": seen.seq, "tasks": [task.as_json() for task in seen.tasks]})


@router.get(
    "/v1/sessions/{session:path}/inbox",
    responses={
        200: described(Deliveries, "what nobody acknowledged"),
        **problems("draining", "too_many"),
    },
)
async def get_inbox(
    visitor: Reader, session: str, after: After = 0, limit: Limit = 100, wait: Wait = 0.0
) -> Response:
    """Return what the parent has not acknowledged yet; wait for it, if there is nothing."""
    there = visitor.session(session)
    found = await there.pending(limit, after)
    if not found and wait:
        with visitor.lasts(wait):
            found = await _in_time(visitor.desk.hermes.feed, there, limit, after)
    events = bounded([delivery.event.model_dump(mode="json") for delivery in found])
    return Json({"deliveries": events, "unread": await there.unread()})


@router.post("/v1/sessions/{session:path}/inbox/ack", responses={200: described(Acked, "they are out")})
async def ack(visitor: Writer, session: str, seen: Ack) -> Response:
    """Take deliveries out of the inbox; those that are out already stay out."""
    return Json({"acked": await visitor.session(session).ack(*seen.seqs)})


async def _in_time(feed: Feed, session: Session, limit: int, after: int) -> Sequence[Delivery]:
    """Wait until there is something in the inbox."""
    async with feed.follow(session.id) as reader:
        while True:
            seen = reader.seq
            if found := await session.pending(limit, after):
                return found
            await reader.beyond(seen)
