"""Websockets for Engine.IO that read from a peer only while it reads from them, and only sense."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hermes_async.relay.courier import Courier, Message, Send
from hermes_async.relay.door import Door

#: Where a websocket's scope has its courier, and where its state has what cuts the connection, if the server
#: knows how.
COURIER, ABORT = "hermes.courier", "hermes.abort"

#: Seconds within which a websocket must have shown a token.
ENTER_WITHIN = 10.0

#: Without 1, by which a client leaves: it would keep the websocket, beyond its token.
_SOCKETIO_TYPES = frozenset("023456")

Receive = Callable[[], Awaitable[Message]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def guarded(app: App, door: Door) -> App:
    """Return the ASGI app with websockets that take a message only when the last write went through.

    Engine.IO queues what it has to send without any limit. Every message of a client can make it send
    something, so a client that talks without listening would fill our memory. And it forgets to tidy up
    after a packet that it cannot read, so who sends one counts as gone. Who is not let in by the door, or
    does not show a token in time, is sent away.
    """

    async def guard(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return await app(scope, receive, send)
        if (why := door.refusal(scope)) is not None:
            return await _turn_away(scope, send, why)
        writing = asyncio.Lock()

        async def patient_send(message: Message) -> None:
            async with writing:
                await send(message)

        courier = scope[COURIER] = Courier(patient_send, scope.get("state", {}).get(ABORT))

        async def patient_receive() -> Message:
            async with writing:
                pass
            message = await receive()
            while courier.hears(message.get("text") or ""):
                message = await receive()
            return message if _makes_sense(message) else {"type": "websocket.disconnect", "code": 1007}

        waiting = asyncio.get_running_loop().call_later(ENTER_WITHIN, courier.cut_unless_taken)
        try:
            with door.passed(scope):
                await app(scope, patient_receive, patient_send)
        finally:
            waiting.cancel()
            courier.gone.set()

    return guard


async def _turn_away(scope: MutableMapping[str, Any], send: Send, why: str) -> None:
    """Answer 429 with a sentence, where the server can; else 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"5")]
    await send({"type": "websocket.http.response.start", "status": 429, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": why.encode()})


def _makes_sense(message: Message) -> bool:
    """Tell whether it is no text at all, or a packet that Engine.IO can read: close, pong, or Socket.IO's."""
    if message["type"] != "websocket.receive":
        return True
    text = message.get("text") or ""
    return text in ("1", "3") or (text[:1] == "4" and text[1:2] in _SOCKETIO_TYPES)
