"""A model behind the wire of OpenAI's chat completions, over a real socket, which answers as a script says.

In a test: `with ScriptedModel(call("search", query="x"), say("So.")) as model:`, and `model.env` for a
process. As its own one, for benchmarks: `python -m tests.support.model --script tests.support.model:echo`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import Any, Final, Literal, Self

from aiohttp import web

_ids = itertools.count(1)

#: What a reply says that it has consumed, unless it says otherwise: input and output tokens.
TOKENS: Final = (100, 20)


@dataclass(frozen=True)
class Request:
    """One request, as it came."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages", ()))

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [tool["function"]["name"] for tool in self.body.get("tools", ())]

    @property
    def last(self) -> str:
        """The text of the last message."""
        return _text(self.messages[-1])

    def said(self, role: str) -> list[str]:
        """The texts of the messages of one role: system, user, assistant or tool."""
        return [_text(message) for message in self.messages if message["role"] == role]


@dataclass(frozen=True)
class Reply:
    """What a request gets."""

    #: Each is one piece of the stream.
    chunks: tuple[str, ...] = ()
    #: Tools to call: their names and arguments.
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Seconds before the first byte, and between two pieces.
    delay: float = 0.0
    pause: float = 0.0
    #: Input and output tokens; None: it does not say.
    tokens: tuple[int, int] | None = TOKENS
    #: What happens after the pieces instead of an end: silence, or a connection that breaks.
    ending: Literal["", "hang", "break"] = ""

    def but(self, **changes: Any) -> Reply:
        return replace(self, **changes)


#: Answers each request; or replies that are given one after the other.
Script = Callable[[Request], Any] | Sequence[Reply]


def say(*chunks: str, **more: Any) -> Reply:
    """Text; streamed, each chunk is one event."""
    return Reply(chunks=chunks, **more)


def call(name: str, /, **arguments: Any) -> Reply:
    """A call of one tool."""
    return Reply(calls=((name, arguments),))


def calls(*wanted: tuple[str, dict[str, Any]]) -> Reply:
    """Calls of several tools at once."""
    return Reply(calls=wanted)


def status(code: int, **headers: str) -> Reply:
    """An error; `status(429, retry_after="2")`."""
    return Reply(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})


def hang(*chunks: str) -> Reply:
    """Some text, and then nothing more."""
    return Reply(chunks=chunks, ending="hang")


def broken(*chunks: str) -> Reply:
    """Some text, and then the connection breaks."""
    return Reply(chunks=chunks, ending="break")


def echo(request: Request) -> Reply:
    """Say the last message again."""
    return say(f"You said: {request.last}")


def two_tools(request: Request) -> Reply:
    """Call the first two tools, one after the other, and then say what came of it."""
    done = len(request.said("tool"))
    if done < min(2, len(request.tools)):
        return call(request.tools[done], query="loopback")
    return say("It ", "is ", "so.")


class ScriptedModel:
    """The server, in a thread with a loop of its own.

    Args:
        replies: given one after the other; who asks for more gets status 400.
        script: a function of the request, `def` or `async def`, instead of them.
    """

    def __init__(self, *replies: Reply, script: Script | None = None) -> None:
        chosen = replies if script is None else script
        self._script = chosen if callable(chosen) else None
        self._replies = deque(() if callable(chosen) else chosen)
        self.requests: list[Request] = []
        #: Requests that are being answered, and those whose client went away before the end.
        self.open = self.dropped = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The base URL that a client is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def env(self) -> dict[str, str]:
        """The variables by which a process finds it."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": "scripted"}

    def then(self, *replies: Reply) -> None:
        """Add replies."""
        self._replies.extend(replies)

    def script(self, answer: Callable[[Request], Any]) -> None:
        """Have a function answer from now on."""
        self._script = answer

    def __enter__(self) -> Self:
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="scripted-model")
        self._thread.start()
        self.port = ready.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def serve(self, ready: Future[int], port: int = 0) -> None:
        """Listen until it is stopped; tell `ready` the port."""
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/stats", self._stats)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        ready.set_result(runner.addresses[0][1])
        await self._stopping.wait()
        await runner.cleanup()

    def _run(self, ready: Future[int]) -> None:
        try:
            self._loop.run_until_complete(self.serve(ready))
        finally:
            self._loop.close()

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": len(self.requests), "open": self.open, "dropped": self.dropped})

    async def _completions(self, came: web.Request) -> web.StreamResponse:
        request = Request(await came.json(), dict(came.headers), came.path)
        self.requests.append(request)
        with self._counted():
            reply = await self._reply(request)
            await asyncio.sleep(reply.delay)
            if reply.status != 200:
                return _error(reply)
            return await (_streamed if request.streamed else _whole)(came, request, reply)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            self.dropped += 1
            raise
        finally:
            self.open -= 1

    async def _reply(self, request: Request) -> Reply:
        if self._script is not None:
            said = self._script(request)
            return await said if isawaitable(said) else said  # type: ignore[no-any-return]
        return self._replies.popleft() if self._replies else status(400)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _error(reply: Reply) -> web.Response:
    body = {"error": {"message": f"scripted {reply.status}", "type": "scripted", "code": None}}
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
    reason = "tool_calls" if reply.calls else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
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


async def _pieces(reply: Reply) -> AsyncIterator[dict[str, Any]]:
    yield _piece({"role": "assistant", "content": ""})
    for number, chunk in enumerate(reply.chunks):
        if number:
            await asyncio.sleep(reply.pause)
        yield _piece({"content": chunk})
    if reply.calls:
        yield _piece({"tool_calls": _tool_calls(reply)})
    if not reply.ending:
        yield _piece({}, "tool_calls" if reply.calls else "stop")
        if reply.tokens is not None:
            yield {"choices": [], "usage": _usage(reply)}


def _piece(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _head(request: Request, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{next(_ids)}", "object": kind, "created": 1, "model": request.model}


def _break(came: web.Request) -> None:
    assert came.transport is not None
    came.transport.abort()


async def _serve(script: str, port: int) -> None:
    module, _, name = script.partition(":")
    model = ScriptedModel(script=getattr(importlib.import_module(module), name))
    ready: Future[int] = Future()
    serving = asyncio.create_task(model.serve(ready, port))
    model.port = await asyncio.wrap_future(ready)
    print(model.url, flush=True)
    await serving


def main() -> None:
    """Serve until the process is killed; the first line that is printed is the base URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--script", default="tests.support.model:echo", help="module:function of a request")
    parser.add_argument("--port", type=int, default=0)
    said = parser.parse_args()
    asyncio.run(_serve(said.script, said.port))


if __name__ == "__main__":
    main()
