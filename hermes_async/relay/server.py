"""The relay as an app, and as a server of its own from the first connection to a graceful stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import RelayUnavailable
from hermes_async.relay.backpressure import ABORT, COURIER, App
from hermes_async.relay.courier import ACK_BYTES, Courier
from hermes_async.relay.line import Limits
from hermes_async.relay.sockets import READ_BYTES, Relay

#: Seconds for the sockets to close by themselves when the relay stops.
GRACE = 3
#: Seconds within which a connection must have asked for something, by the end of its headers.
ASK_WITHIN = 10.0
#: Milliseconds after which the kernel gives up a peer that does not take what we sent.
STALLED = 30_000


def create_app(
    hermes: Hermes, *, secret: str, limits: Limits | None = None, origins: Sequence[str] = ()
) -> App:
    """Return the relay as an ASGI app; the caller closes `hermes` after the server has stopped.

    Args:
        hermes: whose sessions are relayed.
        secret: what signs the tokens, at least 32 bytes.
        limits: what one socket may ask for, and how many there may be.
        origins: of the pages that may connect, like `https://chat.example`; by default the relay's own.

    Raises:
        ConfigError: the secret is too short.
    """
    return Relay(hermes, secret, limits or Limits(), origins).app


async def serve(
    hermes: Hermes,
    host: str,
    port: int,
    secret: str,
    *,
    on_ready: Callable[[int], object] | None = None,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM, SIGINT or cancellation, then stop gracefully; `hermes` is left open.

    Args:
        hermes: whose sessions are relayed.
        host: the address to listen on.
        port: 0 for a free one.
        secret: what signs the tokens, at least 32 bytes.
        on_ready: called with the port as soon as clients can connect.
        limits: what one socket may ask for, and how many there may be.
        origins: of the pages that may connect, like `https://chat.example`; by default the relay's own.

    Raises:
        ConfigError: the secret is too short.
        RelayUnavailable: the address cannot be listened on.
    """
    relay = Relay(hermes, secret, limits or Limits(), origins)
    with _listen(host, port) as listener:
        server = _Server(relay, listener, on_ready or (lambda port: None))
        running = asyncio.create_task(server.serve(sockets=[listener]), name="hermes-relay-server")
        try:
            await asyncio.wait({running})
        finally:
            server.should_exit = True
            await running


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as exc:
        raise RelayUnavailable(
            f"the relay cannot listen on {host}:{port} ({exc}); stop what does, or choose another port"
        ) from exc
    # Both are inherited by the connections. asyncio sets the first itself only for sockets that name their
    # protocol, which this one does not; without it, what is written in two parts waits 40 ms for the client.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED)
    return listener


class _Websocket(WebSocketsSansIOProtocol):
    """Uvicorn's, telling the app how to cut a connection; an acknowledgement does not go through its queue.

    It would pause and resume the reading of the socket, and wake three tasks, for a few bytes.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: self.transport.abort}

    def handle_text(self, event: Frame) -> None:
        """Take a message, which may be an acknowledgement."""
        courier: Courier | None = cast("dict[str, Any]", self.scope).get(COURIER)
        text = bytes(event.data[:ACK_BYTES])
        if not (courier and event.fin and courier.hears(text.decode(errors="replace"))):
            super().handle_text(event)

    def handle_ping(self) -> None:
        """Answer a ping of a peer that takes answers; the transport would keep those of one that does not."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the answers are forgotten


class _Http(H11Protocol):
    """The same for plain HTTP; who asks nothing, or takes too long over it, is cut off.

    Uvicorn would wait for ever for the first request, and for any that has begun to come.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: self.transport.abort}
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait_no_more()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def _await_request(self) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(ASK_WITHIN, self._cut_unless_asked)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _cut_unless_asked(self) -> None:
        is_http = self in self.connections  # and has not become a websocket
        if is_http and (self.cycle is None or self.cycle.response_complete):
            if self.transport.get_write_buffer_size():  # it still takes the last answer
                self._await_request()
            else:
                self.transport.abort()


class _Server(uvicorn.Server):
    """Uvicorn that says goodbye, and that leaves the signals to whoever runs it once it has stopped."""

    def __init__(self, relay: Relay, listener: socket.socket, on_ready: Callable[[int], object]) -> None:
        super().__init__(
            uvicorn.Config(
                relay.app,
                log_config=None,
                access_log=False,
                http=_Http,
                ws=_Websocket,
                ws_max_size=READ_BYTES,
                ws_ping_interval=None,  # Engine.IO has pings of its own
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=GRACE,
                lifespan="on",
            )
        )
        self._relay = relay
        self._port: int = listener.getsockname()[1]
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and tell that we do."""
        await super().startup(sockets)
        self._on_ready(self._port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, say goodbye, and drop who does not go."""
        for server in self.servers:
            server.close()
        await self._relay.drain()
        stop_waiting = asyncio.get_running_loop().call_later(GRACE / 2, self._drop_connections)
        try:
            await super().shutdown(sockets)
        finally:
            stop_waiting.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second signal says that it is urgent."""
        if self.should_exit:
            self._relay.hurry()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; unlike uvicorn's own, do not raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _drop_connections(self) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()  # `close` would wait for a peer that does not read
