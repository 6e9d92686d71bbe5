"""The app beside the socket server: its routes, its errors, and its description."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

import hermes_async
from hermes_async.domain.errors import HermesError
from hermes_async.relay import browser
from hermes_async.relay.commands import refusal
from hermes_async.relay.http import events, health, sessions, tasks
from hermes_async.relay.http.desk import Desk
from hermes_async.relay.http.problem import STATUSES, Problem, Refused, problem, problems

logger = logging.getLogger("hermes.relay")

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
#: What any operation may answer.
_COMMON = problems(
    "malformed",
    "unauthorized",
    "forbidden",
    "not_found",
    "too_slow",
    "too_large",
    "unsupported_media_type",
    "invalid",
    "internal",
    "unavailable",
)
_SCHEME = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="a token of the relay, see docs/wire.md"
)


class Face(FastAPI):
    """FastAPI that describes problems, too."""

    def openapi(self) -> dict[str, Any]:
        """Return the description of every operation."""
        told = super().openapi()
        told["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return told


def http_app(desk: Desk, lifespan: Lifespan, origins: Sequence[str] = ()) -> FastAPI:
    """Return the app.

    Args:
        desk: lets requests in.
        lifespan: entered while the relay runs.
        origins: of the pages that may ask, like `https://chat.example`; by default the relay's own.
    """
    # without the pages that show the description: they load scripts of strangers
    app = Face(
        title="hermes relay",
        version=hermes_async.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.desk = desk
    app.include_router(health.router)
    app.include_router(browser.router)
    for router in (tasks.router, sessions.router, events.router, health.guarded):
        app.include_router(router, dependencies=[Security(_SCHEME)], responses=_COMMON)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["Location", "Retry-After"],
        )
    app.add_exception_handler(HermesError, _failed)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(HTTPException, _foreign)
    app.add_exception_handler(Exception, _failed)
    return app


async def _failed(request: Request, exc: Exception) -> Response:
    error = refusal(exc)["error"]
    if error["code"] == "internal":
        logger.error("%s %s failed", request.method, request.scope["route"].path, exc_info=exc)
    return problem(error["code"], error["message"])


async def _refused(request: Request, exc: Exception) -> Response:
    return problem(getattr(exc, "code", "internal"), str(exc))


async def _unfit(request: Request, exc: Exception) -> Response:
    """Answer a request whose parameters or body do not fit; what it said is not repeated."""
    first: Mapping[str, Any] = exc.errors()[0] if isinstance(exc, RequestValidationError) else {}
    place = ".".join(str(part)[:40] for part in first.get("loc", ()))
    return problem("invalid", f"{place or 'the request'}: {first.get('msg', 'it does not fit')}")


async def _foreign(request: Request, exc: Exception) -> Response:
    """Answer what the router refuses: an unknown path or method."""
    status = getattr(exc, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR)
    code = next((code for code, known in STATUSES.items() if known == status), "internal")
    return problem(code, _WORDS.get(code, str(getattr(exc, "detail", exc))), getattr(exc, "headers", None))


_WORDS = {
    "not_found": "there is nothing at this path: /openapi.json lists what there is",
    "method_not_allowed": "this path is asked in another way: see the header Allow",
}
