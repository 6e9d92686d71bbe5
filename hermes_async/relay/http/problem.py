"""What went wrong, as RFC 9457 problems; a `code` is the same as over the socket."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"

#: The status of every code.
STATUSES: Final[Mapping[str, HTTPStatus]] = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "not_acceptable": HTTPStatus.NOT_ACCEPTABLE,
    "too_slow": HTTPStatus.REQUEST_TIMEOUT,
    "conflict": HTTPStatus.CONFLICT,
    "not_taken": HTTPStatus.CONFLICT,
    "unreadable": HTTPStatus.CONFLICT,
    "too_large": HTTPStatus(413),
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "invalid": HTTPStatus(422),
    "limit_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many": HTTPStatus.TOO_MANY_REQUESTS,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "draining": HTTPStatus.SERVICE_UNAVAILABLE,
}
_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "unauthorized": {"www-authenticate": "Bearer"},
    "limit_exceeded": {"retry-after": "5"},
    "too_many": {"retry-after": "5"},
    "unavailable": {"retry-after": "1"},
    "draining": {"retry-after": "1"},
}


class Problem(BaseModel):
    """What every answer says that is no success."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="always `about:blank`: the code says what it is", examples=["about:blank"])
    title: str = Field(description="the status in words", examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(
        description="one sentence, with the cure",
        examples=["there is no such session or task, or it is not yours"],
    )
    code: str = Field(description="for programs; the same as over the socket", examples=["not_found"])


class Refused(Exception):
    """A request that is refused for a reason of HTTP's own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def problem(code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer to a request that failed."""
    status = STATUSES[code]
    said = Problem(type="about:blank", title=status.phrase, status=status, detail=detail, code=code)
    told = {**_HEADERS.get(code, {}), **(headers or {})}
    return Response(to_json(said), status, told, MEDIA_TYPE)


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI tells which codes an operation may answer with."""
    told: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status = STATUSES[code]
        example = {
            "type": "about:blank",
            "title": status.phrase,
            "status": status,
            "detail": "...",
            "code": code,
        }
        schema = {"$ref": "#/components/schemas/Problem"}
        answer = told.setdefault(status.value, {"content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}})
        answer["content"][MEDIA_TYPE]["examples"][code] = {"value": example}
        answer["description"] = " or ".join(f"`{each}`" for each in answer["content"][MEDIA_TYPE]["examples"])
        answer.setdefault("headers", {}).update(
            {name: {"schema": {"type": "string"}} for name in _HEADERS.get(code, ())}
        )
    return told
