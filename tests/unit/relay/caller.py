"""A client of the relay over plain HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass
class Answer:
    status: int
    headers: Any
    said: Any


class Caller:
    """A client with a token."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str | None) -> None:
        self._http, self._url = http, url
        self.headers = {"Authorization": f"Bearer {token}"} if token is not None else {}

    async def __call__(self, method: str, path: str, said: Any = None, **more: Any) -> Answer:
        headers = self.headers | more.pop("headers", {})
        body = {"json": said} if said is not None else {}
        async with self._http.request(method, self._url + path, headers=headers, **body, **more) as answer:
            text = await answer.text()
            plain = json.loads(text) if "json" in answer.content_type else text
            return Answer(answer.status, answer.headers, plain)

    async def refused(self, *asked: Any, **more: Any) -> tuple[int, str]:
        """The status and the code of a request that must fail."""
        answer = await self(*asked, **more)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.said.keys() == {"type", "title", "status", "detail", "code"}
        assert answer.said["status"] == answer.status
        assert "\n" not in answer.said["detail"]
        return answer.status, answer.said["code"]

    @asynccontextmanager
    async def stream(self, path: str, **more: Any) -> AsyncIterator[AsyncIterator[Frame]]:
        """The frames of an event stream, as they come."""
        headers = {**self.headers, "Accept": "text/event-stream", **more.pop("headers", {})}
        async with self._http.get(self._url + path, headers=headers, **more) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            yield _frames(answer.content)


@dataclass
class Frame:
    """An event of a stream; a comment has no name."""

    id: str | None = None
    name: str | None = None
    data: Any = None


async def _frames(lines: aiohttp.StreamReader) -> AsyncIterator[Frame]:
    frame = Frame()
    async for line in lines:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        match field:
            case "id":
                frame.id = value
            case "event":
                frame.name = value
            case "data":
                frame.data = json.loads(value)
            case "":
                yield frame
                frame = Frame()
