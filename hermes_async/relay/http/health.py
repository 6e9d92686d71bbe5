"""Whether the relay is well, for everybody; and its figures, for operators."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from hermes_async.domain.errors import StoreDamaged, StoreUnavailable
from hermes_async.relay.http.answer import Json, described
from hermes_async.relay.http.desk import Desk, Reader
from hermes_async.relay.http.exposition import MEDIA_TYPE
from hermes_async.relay.http.metrics import page
from hermes_async.relay.http.models import Health
from hermes_async.relay.http.problem import Refused
from hermes_async.relay.http.strict import StrictRoute

router = APIRouter(tags=["operations"])
guarded = APIRouter(route_class=StrictRoute, tags=["operations"])


@router.get(
    "/healthz",
    responses={200: described(Health, "it serves"), 503: described(Health, "it cannot serve at the moment")},
)
async def get_health(request: Request) -> Response:
    """Tell whether the relay can serve; needs no token."""
    desk: Desk = request.app.state.desk
    try:
        answers: str | None = await desk.hermes.store.ping()
    except (StoreUnavailable, StoreDamaged):
        answers = None
    hears = desk.host.hears()
    well = answers is not None and hears
    said = {"status": "ok" if well else "unavailable", "redis": answers, "hears": hears}
    return Json(said, 200 if well else 503)


@guarded.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "figures for Prometheus",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
    },
)
async def get_metrics(visitor: Reader) -> Response:
    """Return figures of the project and of this relay; the token must name all sessions."""
    if visitor.grant.sessions != "*":
        raise Refused("forbidden", "figures are for operators: use a token for all sessions")
    store = visitor.desk.hermes.store
    counted, traffic, backlog = await asyncio.gather(store.metrics(), store.traffic(), store.ledger.backlog())
    figures = page(counted, traffic, backlog, visitor.desk.counts())
    return Response(figures, media_type=MEDIA_TYPE)
