"""The wire of chat completions and of the Responses API: a scripted reply as bytes on a connection."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.support.replies import Reply, Request
from tests.support.responses import as_events

_ids = itertools.count(1)


async def written(came: web.Request, request: Request, reply: Reply) -> web.StreamResponse:
    """Answer a request."""
    if reply.status != 200:
        return _error(reply)
    if reply.raw is not None:
        return web.Response(text=reply.raw, content_type=reply.content_type)
    if request.speaks_responses:
        return await _responded(came, request, reply)
    return await (_streamed if request.streamed else _whole)(came, request, reply)


def _error(reply: Reply) -> web.Response:
    body = {
        "error": {"message": reply.message or f"scripted {reply.status}", "type": "scripted", "code": None}
    }
    return web.json_response(body, status=reply.status, headers=dict(reply.headers))


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "id": f"call_{next(_ids)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(reply.calls)
    ]


def _finish(reply: Reply) -> str:
    return reply.finish or ("tool_calls" if reply.calls else "stop")


def _usage(reply: Reply) -> dict[str, int]:
    came, went = reply.tokens or (0, 0)
    return {"prompt_tokens": came, "completion_tokens": went, "total_tokens": came + went}


async def _whole(came: web.Request, request: Request, reply: Reply) -> web.StreamResponse:
    if reply.ending == "hang":
        await asyncio.Event().wait()
    if reply.ending == "break":
        _break(came)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.chunks) or None}
    if reply.calls:
        message["tool_calls"] = _tool_calls(reply)
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    usage = {} if reply.tokens is None else {"usage": _usage(reply)}
    return web.json_response({**_head(request, "chat.completion"), "choices": [choice], **usage})


async def _streamed(came: web.Request, request: Request, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(came)
    head = _head(request, "chat.completion.chunk")
    async for piece in _pieces(reply):
        await response.write(f"data: {json.dumps({**head, **piece})}\n\n".encode())
    if reply.ending == "hang":
        await asyncio.Event().wait()
    if reply.ending == "break":
        _break(came)
        return response
    await response.write(b"data: [DONE]\n\n")
    return response


async def _responded(came: web.Request, request: Request, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(came)
    for event in as_events(request.model, reply.chunks, reply.calls, reply.tokens):
        if event["type"] == "response.output_text.delta":
            await asyncio.sleep(reply.pause)
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return response


async def _pieces(reply: Reply) -> AsyncIterator[dict[str, Any]]:
    yield _piece({"role": "assistant", "content": ""})
    for number, chunk in enumerate(reply.chunks):
        if number:
            await asyncio.sleep(reply.pause)
        yield _piece({"content": chunk})
    if reply.calls:
        yield _piece({"tool_calls": _tool_calls(reply)})
    if not reply.ending:
        yield _piece({}, _finish(reply))
        if reply.tokens is not None:
            yield {"choices": [], "usage": _usage(reply)}


def _piece(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _head(request: Request, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{next(_ids)}", "object": kind, "created": 1, "model": request.model}


def _break(came: web.Request) -> None:
    assert came.transport is not None
    came.transport.abort()
