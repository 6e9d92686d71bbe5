"""Server-sent events: a topic's news as a stream that a browser resumes by itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final

import anyio
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hermes_async.domain.errors import StoreUnavailable
from hermes_async.relay.backpressure import ABORT
from hermes_async.relay.http.desk import Visitor
from hermes_async.relay.line import RETRY_EVERY
from hermes_async.relay.tail import Portion, Tail
from hermes_async.relay.wire import DRAINING, EXPIRED

logger = logging.getLogger("hermes.relay")

MEDIA_TYPE: Final = "text/event-stream"
#: Seconds of silence after which a comment is sent: proxies close a connection that says nothing.
HEARTBEAT: Final = 15.0
#: Seconds for the last words of a stream.
FAREWELL: Final = 1.0
#: Milliseconds until a client connects again; not all at once.
RETRY: Final = (500, 3000)


class EventStream(Response):
    """A topic's batches, until it ends, the token expires, the relay stops, or nobody takes them.

    There is never more than one batch in memory: the next is read when the last one was taken.
    """

    media_type = MEDIA_TYPE

    def __init__(self, visitor: Visitor, tail: Tail, first: Portion | None) -> None:
        """`first` is what was read from the tail already."""
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._visitor = visitor
        self._windows = visitor.desk.windows
        self._tail = tail
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        pipe = _Pipe(send, self._visitor.desk.limits.ack_timeout, scope.get("state", {}).get(ABORT))
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        with self._visitor.lasts() as life:
            await send(start)
            async with anyio.create_task_group() as group:
                group.start_soon(_end_with, receive, group.cancel_scope)
                await self._tell(pipe)
                group.cancel_scope.cancel()
        why = DRAINING if self._visitor.desk.draining else EXPIRED
        await pipe.close(frame(why, {}) if life.cancelled_caught else b"")

    async def _tell(self, pipe: _Pipe) -> None:
        await pipe.write(b"retry: %d\n\n" % random.randint(*RETRY))
        if self._first is not None:
            await pipe.write(frames(self._first))
        while pipe.flows and not self._tail.ended:
            try:
                await self._follow(pipe)
            except StoreUnavailable as exc:
                self._windows.outage.began(exc)
                await asyncio.sleep(RETRY_EVERY)
        if self._tail.ended:
            await pipe.write(frame("end", {}))

    async def _follow(self, pipe: _Pipe) -> None:
        tail = self._tail
        async with self._windows.over(tail.topic.session_id, tail) as window:
            reader = window.reader
            while pipe.flows and not tail.ended:
                portion = await tail.next(reader.seq, window)
                if portion is not None:
                    await pipe.write(frames(portion))
                while pipe.flows and tail.caught_up and not tail.ended and reader.seq <= tail.known:
                    with anyio.move_on_after(HEARTBEAT) as silence:
                        await reader.beyond(tail.known)
                    if silence.cancelled_caught:
                        await pipe.write(b":\n\n")


class _Pipe:
    """The way to a client, until it does not take what is sent."""

    def __init__(self, send: Send, patience: float, abort: Callable[[], None] | None) -> None:
        """It flows.

        Args:
            send: the server's.
            patience: seconds in which the client must take what was sent before.
            abort: cuts the connection, and frees what waits in it; None: the server knows no way.
        """
        self.flows = True
        self._send = send
        self._patience = patience
        self._abort = abort

    async def write(self, said: bytes) -> None:
        """Send, or stop flowing."""
        await self._pass({"type": "http.response.body", "body": said, "more_body": True}, self._patience)

    async def close(self, said: bytes) -> None:
        """Say that this was all; a client that takes nothing is left to the server and the kernel."""
        await self._pass({"type": "http.response.body", "body": said, "more_body": False}, FAREWELL)

    async def _pass(self, message: dict[str, Any], patience: float) -> None:
        if not self.flows:
            return
        with anyio.move_on_after(patience) as limit:
            await self._send(message)
        if limit.cancelled_caught:
            self.flows = False
            logger.info("a stream ends: its client did not take it within %g s", patience)
            if self._abort is not None:
                self._abort()
                await asyncio.sleep(0)  # the server hears of it


async def _end_with(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel the scope when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def frames(portion: Portion) -> bytes:
    """Return a batch as events of a stream."""
    told = "".join(f"id: {one.seq}\nevent: {one.type}\ndata: {one.text}\n\n" for one in portion.events)
    if portion.gap is None or portion.snapshot is None:
        return told.encode()
    # who resumes within a snapshot gets it anew
    place = b"" if portion.snapshot["more"] else b"id: %d\n" % portion.gap[1]
    return place + frame("gap", {"gap": portion.gap, "snapshot": portion.snapshot})


def frame(name: str, data: object) -> bytes:
    """Return something of a stream that is not in the log."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(data))
