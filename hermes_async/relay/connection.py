"""One connection of a client to a relay, good for one subscription."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, TypedDict

import aiohttp
import socketio

from hermes_async.core.signature import as_json
from hermes_async.domain.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    NotTaken,
    TaskRejected,
    Unauthorized,
    UnknownTask,
    UnreadableTask,
)
from hermes_async.domain.failure import Reason
from hermes_async.relay.wire import EVENTS, EXPIRED, MESSAGE_BYTES, QUIET, SUBSCRIBE, Batch, Wire

#: Bytes; the largest message that a client takes.
TAKEN_BYTES = 64_000_000
#: Seconds for a relay to answer.
ANSWER = 10.0
#: Seconds for a connection to close.
FAREWELL = 2.0


#: What a refusal means, by its code.
_ERRORS: Mapping[str | None, type[Exception]] = {
    "not_found": UnknownTask,
    "invalid": InvalidInput,
    "too_many": InvalidInput,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not_taken": NotTaken,
    "conflict": IdempotencyConflict,
    "unreadable": UnreadableTask,
}


class Wanted(TypedDict):
    """What is subscribed to."""

    session: str | None
    task: str | None
    after: int


class _Said(Wire):
    """A packet of a client, in UTF-8: with escapes many a text would be two or three times as long."""

    json = SimpleNamespace(loads=json.loads, dumps=partial(json.dumps, ensure_ascii=False))


class Lost(Exception):
    """The connection broke, or was never made; another one may do better."""


class Connection:
    """Hands out batches one at a time; each is acknowledged when the next one is asked for."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        #: The token ran out while we were connected.
        self.expired = False
        self._refused: object = None
        self._gone = asyncio.Event()
        self._inbox: asyncio.Queue[tuple[Batch, asyncio.Event] | None] = asyncio.Queue()
        self._consumed = asyncio.Event()
        self._unconsumed: set[asyncio.Event] = set()
        self._sio = socketio.AsyncClient(
            reconnection=False,
            handle_sigint=False,
            serializer=_Said,
            http_session=http,
            websocket_extra_options={"max_msg_size": TAKEN_BYTES},
            logger=QUIET,
            engineio_logger=QUIET,
        )
        self._sio.on(EVENTS, self._receive)
        self._sio.on(EXPIRED, self._expire)
        self._sio.on("connect_error", self._note_refusal)
        self._sio.on("disconnect", self._go)

    async def open(self, url: str, token: str) -> None:
        """Connect.

        Raises:
            Unauthorized: the relay does not accept the token.
            Lost: there is no relay, or it does not want us now.
        """
        try:
            await self._sio.connect(
                url, headers={}, auth={"token": token}, transports=["websocket"], wait_timeout=ANSWER
            )
        except Exception as exc:  # python-socketio lets through whatever a half-open connection causes
            refused = self._refused if isinstance(self._refused, dict) else {}
            told = refused.get("data")
            if isinstance(told, dict) and told.get("code") == "unauthorized":
                raise Unauthorized(str(told.get("message"))) from None
            raise Lost(str(refused.get("message") or exc)) from exc

    async def subscribe(self, wanted: Wanted) -> None:
        """Ask for events.

        Raises:
            UnknownTask: the session or task does not exist, or the token does not allow it.
            InvalidInput: the relay does not understand what is wanted.
            Lost: the relay did not answer, or cannot read from its store.
        """
        await self.command(SUBSCRIBE, **wanted)

    async def command(self, name: str, **said: Any) -> dict[str, Any]:
        """Give a command, without what is None in it, and return what the relay answers.

        Raises:
            UserError: it is refused; the error is the one that is raised without a relay. What is no JSON, or
                larger than the relay takes, is not even sent.
            TaskRejected: a limit says no.
            Lost: the relay did not answer, or cannot reach its store; nobody knows whether it was obeyed.
        """
        wish = {key: value for key, value in said.items() if value is not None}
        answer = await self._ask(name, as_json(wish, f"the command {name}", limit=MESSAGE_BYTES))
        if answer.get("ok"):
            return answer
        error = answer.get("error", {})
        message = error.get("message", "the relay refused")
        if error.get("code") == "limit_exceeded":
            raise TaskRejected(message, task_id="", reason=Reason.LIMIT_EXCEEDED, error=None)
        raise _ERRORS.get(error.get("code"), Lost)(message)

    @property
    def is_gone(self) -> bool:
        """True when it broke, or was closed."""
        return self._gone.is_set()

    async def next(self) -> Batch | None:
        """Acknowledge the batch before, and return the next one, or None when the connection is gone."""
        self._consumed.set()
        received = await self._inbox.get()
        if received is None:
            return None
        batch, self._consumed = received
        return batch

    async def close(self) -> None:
        """Disconnect, and end what runs in the background."""
        for consumed in list(self._unconsumed):
            consumed.set()
        self._go()
        with suppress(Exception):  # also TimeoutError; there is nobody left to tell
            async with asyncio.timeout(FAREWELL):
                await self._sio.disconnect()
                await self._sio.eio.wait()

    async def _ask(self, command: str, wish: dict[str, Any]) -> dict[str, Any]:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await self._sio.emit(command, wish, callback=lambda *said: _settle(answered, said))
            await asyncio.wait({answered, gone}, timeout=ANSWER, return_when=asyncio.FIRST_COMPLETED)
        except socketio.exceptions.SocketIOError as exc:
            raise Lost(str(exc)) from exc
        finally:
            gone.cancel()
        if not answered.done():
            raise Lost("the relay did not answer")
        answer = answered.result()
        return answer if isinstance(answer, dict) else {}

    async def _receive(self, batch: Batch) -> bool:
        """Keep a batch; returning is what acknowledges it."""
        consumed = asyncio.Event()
        self._unconsumed.add(consumed)
        self._inbox.put_nowait((batch, consumed))
        await consumed.wait()
        self._unconsumed.discard(consumed)
        return True

    async def _expire(self, *_: object) -> None:
        self.expired = True

    def _note_refusal(self, told: object = None) -> None:
        self._refused = told

    def _go(self, *_: object) -> None:
        self._gone.set()
        self._inbox.put_nowait(None)


def _settle(answered: asyncio.Future[Any], said: tuple[Any, ...]) -> None:
    if not answered.done():
        answered.set_result(said[0] if said else None)
