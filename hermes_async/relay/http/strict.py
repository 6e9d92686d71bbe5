"""Requests as they must be: a token before anything is read, and a body of JSON that is not too large."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio
from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from hermes_async.core.signature import MAX_BYTES
from hermes_async.relay.http.desk import Desk
from hermes_async.relay.http.problem import Refused

#: Bytes of a body: those of the largest input, and of what may stand around it.
BODY_BYTES: Final = MAX_BYTES + 10_000
#: Seconds in which a body must have arrived.
BODY_TIME: Final = 20.0


class StrictRoute(APIRoute):
    """A route that lets nobody in without a token, and no body that cannot be understood."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            desk: Desk = request.app.state.desk
            request.state.visitor = await desk.admit(request)
            if self.body_field is not None:
                request = _Plain(request, await _body(request))
            return await answer(request)

        return strictly


class _Plain(Request):
    """A request whose body was read already."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope)
        self._body = body
        self._values = _parsed(body) if body else None

    async def json(self) -> Any:
        """Return the body as plain values."""
        return self._values


async def _body(request: Request) -> bytes:
    """Read the body.

    Raises:
        Refused: it is too large, too slow, or something else than JSON.
    """
    read = bytearray()
    try:
        with anyio.fail_after(BODY_TIME):
            async for chunk in request.stream():
                read += chunk
                if len(read) > BODY_BYTES:
                    raise Refused("too_large", f"a body has at most {BODY_BYTES:,} bytes: send a reference")
    except TimeoutError:
        raise Refused("too_slow", f"the body did not arrive within {BODY_TIME:g} s: send it again") from None
    except ClientDisconnect:
        raise Refused("malformed", "the body did not arrive: send it again") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if read and kind != "application/json":
        raise Refused("unsupported_media_type", "send JSON, with the header `Content-Type: application/json`")
    return bytes(read)


def _parsed(body: bytes) -> Any:
    """Return plain values; unlike Python's own reader, accept no NaN and no half characters.

    Raises:
        Refused: it is not JSON.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise Refused("malformed", f"the body is not JSON that can be read: {exc}") from None
