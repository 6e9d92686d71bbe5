"""A model behind the wire of OpenAI's chat completions, over a real socket, which answers as a script says.

In a test: `with ScriptedModel(call("search", query="x"), say("So.")) as model:`, and `model.env` for a
process. As its own one, for benchmarks: `python -m tests.support.model --script tests.support.model:echo`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, Self

from aiohttp import web

from tests.support.completions import written
from tests.support.replies import Reply, Request, broken, call, calls, hang, raw, say, status, too_long

__all__ = [
    "Reply",
    "Request",
    "Script",
    "ScriptedModel",
    "broken",
    "call",
    "calls",
    "hang",
    "raw",
    "say",
    "status",
    "too_long",
]

#: Answers each request; or replies that are given one after the other.
Script = Callable[[Request], Any] | Sequence[Reply]


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
        app.router.add_post("/v1/responses", self._completions)
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
            return await written(came, request, reply)

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
