"""The relay's sockets: it lets clients in by token and answers their commands."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import socketio
from fastapi import FastAPI

from hermes_async.core.ending import end
from hermes_async.core.hermes import Hermes
from hermes_async.core.records import seen
from hermes_async.domain.errors import (
    InvalidInput,
    ServiceError,
    StoreUnavailable,
    TaskRejected,
    Unauthorized,
    UnknownTask,
    UnreadableTask,
    UserError,
    did_you_mean,
)
from hermes_async.relay.auth import Grant, checked_secret, verify
from hermes_async.relay.backpressure import COURIER, guarded
from hermes_async.relay.clerk import Clerk
from hermes_async.relay.commands import Wish, parsed, refusal
from hermes_async.relay.courier import Courier
from hermes_async.relay.door import Door
from hermes_async.relay.ear import Ear
from hermes_async.relay.http import Desk, http_app
from hermes_async.relay.line import Limits, Line
from hermes_async.relay.revocation import Revocation
from hermes_async.relay.tail import Topic
from hermes_async.relay.window import Windows
from hermes_async.relay.wire import COMMAND, DRAINING, EXPIRED, QUIET, SUBSCRIBE, UNSUBSCRIBE, Heard

logger = logging.getLogger("hermes.relay")

#: Bytes of a message that are read at all: one that is larger than a client may send is refused in words.
READ_BYTES = 256_000
#: Seconds for the last words to a socket that is being closed.
FAREWELL = 1.0
#: Seconds over which the sockets are closed when a relay stops, and how many a second if they are few.
DRAIN, DRAIN_RATE = 3.0, 100.0

_Command = Callable[[Line, object], Awaitable[dict[str, Any]]]


class Relay:
    """All sockets of one relay process."""

    def __init__(self, hermes: Hermes, secret: str, limits: Limits, origins: Sequence[str] = ()) -> None:
        self._store = hermes.store
        self._windows = Windows(hermes.feed)
        self._secret = checked_secret(secret)
        self._limits = limits
        self._lines: dict[str, Line] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._draining = False
        self._hurry = asyncio.Event()
        self._ear: Ear | None = None
        self._revocation: Revocation
        self._evictions = 0
        self._sio = _socket_server(origins)
        self._background: set[asyncio.Task[Any]] = set()
        self._sio.eio.start_background_task = self._start
        self._sio.on("connect", self._connect)
        self._sio.on("disconnect", self._disconnect)
        self._sio.on(COMMAND, self._obey)
        self._clerk = Clerk(hermes)
        self._commands = self._known_commands()
        door = Door(limits.connections, limits.per_address)
        self._desk = Desk(hermes, self._windows, self._secret, limits, door, self)
        beside = http_app(self._desk, self._lifespan, origins)
        #: The ASGI app: Socket.IO at /socket.io, and what is asked over plain HTTP.
        self.app = guarded(socketio.ASGIApp(self._sio, other_asgi_app=beside), door)

    async def drain(self) -> None:
        """Let nobody in any more, tell everybody to go elsewhere, and close every socket."""
        self._draining = True
        self._desk.drain()
        lines = list(self._lines.values())
        loop, spread = asyncio.get_running_loop(), min(DRAIN, len(lines) / DRAIN_RATE)
        for line in lines:  # not all in one moment: they connect again, all to the same other relays
            loop.call_later(random.uniform(0.0, spread), line.peer.hang_up, "the relay stops", DRAINING)
        with suppress(TimeoutError):
            async with asyncio.timeout(spread):
                await self._hurry.wait()
        for line in list(self._lines.values()):
            line.peer.hang_up("the relay stops", DRAINING)
        while self._farewells:
            await asyncio.wait(self._farewells)

    def hurry(self) -> None:
        """Close all sockets at once when the relay stops."""
        self._hurry.set()

    async def close(self) -> None:
        """Drain, and stop what runs in the background."""
        await self.drain()
        await self._sio.shutdown()
        left = list(self._background)  # Engine.IO leaves the ping timers of closed sockets running
        await end(*left)
        await asyncio.gather(*left, return_exceptions=True)

    def hang_up(self, sid: str, courier: Courier, why: str, last_word: str | None = None) -> None:
        """Close a socket soon, after an event that says why; one that is being closed already stays so."""
        if courier.leaving:
            return
        courier.leaving = True
        logger.info("closing socket %s: %s", sid, why)
        self._evictions += not self._draining
        farewell = asyncio.create_task(
            self._farewell(sid, courier, last_word), name=f"hermes-relay-farewell {sid}"
        )
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    def counts(self) -> dict[str, float]:
        """Return the figures of the sockets, by name."""
        subscriptions = sum(line.subscriptions for line in self._lines.values())
        return {
            "sockets": len(self._lines),
            "subscriptions": subscriptions,
            "evictions_total": self._evictions,
            "lag_events": self._windows.lag(),
            "ack_wait_seconds": max((line.unacknowledged_for for line in self._lines.values()), default=0.0),
        }

    def _start(self, target: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(target(*args))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _farewell(self, sid: str, courier: Courier, last_word: str | None) -> None:
        eio_sid = self._sio.manager.eio_sid_from_sid(sid, "/")
        if eio_sid is None:
            return
        if last_word is not None:
            await self._sio.emit(last_word, {}, to=sid)
        await self._sio.disconnect(sid)
        try:
            async with asyncio.timeout(FAREWELL):
                await self._sio.eio.disconnect(eio_sid)
                await courier.gone.wait()
        except TimeoutError:  # it does not read: Engine.IO would wait for it, with what it was to read
            courier.cut()

    def hears(self) -> bool:
        """Tell whether it lets clients in and hears what there is to tell them."""
        return not self._draining and self._ear is not None and self._ear.hears()

    async def check(self, grant: Grant) -> None:
        """Let nobody in whose token is revoked.

        Raises:
            Unauthorized: it is.
            StoreUnavailable: nobody knows.
        """
        await self._revocation.check(grant)

    def _tokens(self) -> set[str]:
        grants = [*(line.grant for line in self._lines.values()), *self._desk.present()]
        return {grant.jti for grant in grants if grant.jti is not None}

    def _hang_up_on(self, revoked: Collection[str]) -> None:
        for line in list(self._lines.values()):
            if line.grant.jti in revoked:
                line.peer.hang_up("its token is revoked", EXPIRED)
        self._desk.hang_up_on(revoked)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self._ear = Ear(self._store)
        self._revocation = Revocation(self._store, self._tokens, self._hang_up_on)
        try:
            yield
        finally:
            await self.close()
            await self._revocation.close()
            await self._ear.close()

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        if self._draining:
            _refuse("draining", "this relay stops; connect again")
        try:
            grant = verify(self._secret, auth.get("token") if isinstance(auth, dict) else None)
            await self._revocation.check(grant)
        except Unauthorized as exc:
            _refuse("unauthorized", str(exc))
        except StoreUnavailable as exc:
            _refuse("unavailable", refusal(exc)["error"]["message"])
        courier: Courier = environ["asgi.scope"][COURIER]
        if courier.taken:
            _refuse("invalid", "this websocket is connected already; open another")
        courier.taken = True
        self._lines[sid] = Line(self._windows, grant, self._limits, _Socket(self, sid, courier))

    async def _disconnect(self, sid: str, reason: str) -> None:
        line = self._lines.pop(sid, None)
        if line is not None:
            await line.close()

    def _known_commands(self) -> dict[str, _Command]:
        """Return what a client can command."""

        def by_clerk(name: str) -> _Command:
            return lambda line, said: self._clerk.obey(name, line.grant, said)

        return {
            SUBSCRIBE: self._open,
            UNSUBSCRIBE: self._end,
            **{name: by_clerk(name) for name in self._clerk.commands},
        }

    async def _obey(
        self, sid: str, name: str | InvalidInput, said: object = None, *_: object
    ) -> dict[str, Any]:
        line = self._lines.get(sid)
        if line is None:  # it was closed meanwhile
            return refusal(UnknownTask())
        try:
            await line.pace()  # inside the handler: the socket is not read meanwhile
            return await self._command(name)(line, said)
        except (UserError, ServiceError, TaskRejected, UnreadableTask) as exc:
            return refusal(exc)
        except Exception as exc:
            logger.exception("a command of socket %s failed", sid)
            return refusal(exc)

    def _command(self, name: str | InvalidInput) -> _Command:
        """Return what does a command.

        Raises:
            InvalidInput: there is none of that name, or it could not be read.
        """
        if isinstance(name, InvalidInput):
            raise name
        if name not in self._commands:
            raise InvalidInput(f"there is no command {name!r:.60}{did_you_mean(name[:60], self._commands)}")
        return self._commands[name]

    async def _open(self, line: Line, said: object) -> dict[str, Any]:
        wish = parsed(Wish, said)
        topic = await self._topic(line.grant, wish)
        seq = await self._store.last_seq(topic.session_id)
        line.subscribe(topic, wish.after)
        return {"ok": True, "session": topic.session_id, "task": topic.task_id, "seq": seq}

    async def _end(self, line: Line, said: object) -> dict[str, Any]:
        wish = parsed(Wish, said)
        line.unsubscribe(wish.session, wish.task)
        return {"ok": True}

    async def _topic(self, grant: Grant, wish: Wish) -> Topic:
        """Return what is meant; look it up first in any case, so that a refusal takes as long as a look."""
        if wish.task is not None:
            task = await seen(self._store, wish.task)
            topic = Topic(task.session_id, wish.task) if task else None
        else:
            await self._store.last_seq(wish.session or "")
            topic = Topic(wish.session or "")
        if topic is None or not grant.allows(topic.session_id):
            raise UnknownTask
        return topic


class _Socket:
    """One socket, as its line sees it."""

    def __init__(self, relay: Relay, sid: str, courier: Courier) -> None:
        self._relay = relay
        self._sid = sid
        self._courier = courier

    def send(self, batch: str, acknowledged: Callable[[], None]) -> Coroutine[Any, Any, None]:
        return self._courier.carry(batch, acknowledged)

    def hang_up(self, why: str, last_word: str | None = None) -> None:
        self._relay.hang_up(self._sid, self._courier, why, last_word)


def _socket_server(origins: Sequence[str]) -> Any:
    """Return the server; without origins it is the relay's own that counts.

    An empty list would let Engine.IO check nothing, and one with a star in it would not mean all.
    """
    allowed = None if not origins else "*" if "*" in origins else list(origins)
    return socketio.AsyncServer(
        async_mode="asgi",
        transports=["websocket"],
        async_handlers=False,  # the commands of a client are obeyed one after the other
        serializer=Heard,
        ping_interval=20,
        ping_timeout=15,
        max_http_buffer_size=READ_BYTES,
        cors_allowed_origins=allowed,
        logger=QUIET,
        engineio_logger=QUIET,
    )


def _refuse(code: str, message: str) -> NoReturn:
    raise socketio.exceptions.ConnectionRefusedError(message, {"code": code, "message": message})
