"""The client for browsers, hermes.js, and the route under which the relay gives it out."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response

SCRIPT: Final = (files(__name__) / "hermes.js").read_bytes()
#: Any page may import it: it is no secret, and useless without a token.
_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "max-age=300",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter()


@router.get("/hermes.js", include_in_schema=False)
async def hermes_js() -> Response:
    """Return the client."""
    return Response(SCRIPT, media_type="text/javascript", headers=_HEADERS)
