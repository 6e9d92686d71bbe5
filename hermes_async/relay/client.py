"""The client of a relay: a session's or a task's events, in order, whatever breaks in between."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Annotated, Any, NamedTuple

import aiohttp
from pydantic import Field, JsonValue

from hermes_async.core.arguments import Patience, Seconds, strict
from hermes_async.core.home import Home
from hermes_async.domain.errors import RelayUnavailable, Unauthorized
from hermes_async.domain.events import AnyEvent, parse
from hermes_async.domain.gap import Gap
from hermes_async.relay.connection import Connection, Lost, Wanted
from hermes_async.relay.wire import Batch

#: Seconds between two tries to connect: the first, and the longest.
BACKOFF_FIRST = 0.2
BACKOFF_LONGEST = 5.0


#: Of a relay.
Url = Annotated[str, Field(pattern=r"^(http|ws)s?://[^/\s]")]
#: A token, or what gives a fresh one.
Token = Annotated[str | Callable[[], str], Field()]


class Dispatched(NamedTuple):
    """A task that was accepted, and the `seq` after which its events come."""

    task: str
    seq: int


class RelayClient:
    """Follows sessions and tasks over a relay, and commands them; use it as an async context manager."""

    @strict
    def __init__(
        self,
        url: Url,
        token: Token,
        *,
        timeout: Seconds = 10.0,
        give_up_after: Patience = None,
    ) -> None:
        """Nothing is connected yet: each `follow` has a connection of its own.

        Args:
            url: the relay's, for example `http://127.0.0.1:8765`.
            token: a token, or a function that gives a fresh one for each connection.
            timeout: seconds within which the first connection of a `follow` must be made.
            give_up_after: seconds to go on trying after a connection broke; None: for ever.
        """
        self._url = url
        self._token = token
        self._timeout = timeout
        self._give_up_after = give_up_after
        self._http: aiohttp.ClientSession | None = None
        self._home = Home("RelayClient", "with `async with RelayClient(...)`", by_itself=False)
        self._connections: set[Connection] = set()
        self._commands: Connection | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> RelayClient:
        self._home.open()
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        http = self._ready()
        self._home.is_closed = True
        try:
            for connection in list(self._connections):
                await connection.close()
        finally:
            await http.close()

    async def follow(
        self, *, session: str | None = None, task: str | None = None, after: int = 0
    ) -> AsyncIterator[AnyEvent | Gap]:
        """Yield the events with a `seq` beyond `after`, past and future: of a session for ever, or of a task
        until its end.

        Each comes once and in order. It may take as long as you like to deal with one: no more than a batch
        is held meanwhile, and a connection that the relay gave up is made again when you come back. When the
        client is left, the events of a session end; those of a task, which has not ended, raise Closed.

        Args:
            session: the session's id.
            task: or the task's.
            after: the last `seq` that you have seen.

        Raises:
            Unauthorized: the token is not accepted, or has expired.
            UnknownTask: the session or task does not exist, or the token does not allow it.
            RelayUnavailable: no relay answered in time.
        """
        self._home.loop()
        place = _Place(session, task, after)
        patience = _Patience(self._url, self._timeout)
        while not (place.ended or self._is_left(task)):
            try:
                async with self._subscribed(place, patience) as connection:
                    patience.renew(self._give_up_after)
                    while not place.ended and (batch := await connection.next()) is not None:
                        for item in place.advance(batch):
                            yield item
                    if connection.expired and not place.ended and not callable(self._token):
                        raise Unauthorized("the token has expired; ask for a new one")
            except Lost as exc:
                place.lost = str(exc)
            if not (place.ended or self._is_left(task)):
                await patience.wait(place.lost)

    async def dispatch(
        self,
        session: str,
        subagent: str,
        input: str | Mapping[str, JsonValue],
        *,
        parent: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Dispatched:
        """Start a task, as `Session.submit` does.

        Raises:
            UserError: it is refused, with the error that `Session.submit` raises.
            TaskRejected: a limit says no.
            RelayUnavailable: nobody knows whether it was accepted; with an idempotency key you can ask again.
        """
        answer = await self._command(
            "dispatch",
            session=session,
            subagent=subagent,
            input=dict(input) if isinstance(input, Mapping) else input,
            parent=parent,
            priority=priority,
            idempotency_key=idempotency_key,
        )
        return Dispatched(answer["task"], answer["seq"])

    async def cancel(self, task: str, *, force: bool = False, cascade: bool = True) -> bool:
        """Ask a task to stop, as `TaskHandle.cancel` does; return False when it had ended already."""
        answer = await self._command("cancel", task=task, force=force, cascade=cascade)
        return bool(answer["cancelled"])

    async def send(self, task: str, text: str, data: JsonValue = None) -> int:
        """Say something to a task, as `TaskHandle.send` does; return the event's `seq`."""
        return int((await self._command("send", task=task, text=text, data=data))["seq"])

    async def answer(self, task: str, value: JsonValue, question: str | None = None) -> None:
        """Answer what a task asks, as `TaskHandle.answer` does."""
        await self._command("answer", task=task, value=value, question=question)

    async def message(self, session: str, text: str, data: JsonValue = None) -> int:
        """Say something in a session, as `Session.send_message` does; return the event's `seq`."""
        return int((await self._command("message", session=session, text=text, data=data))["seq"])

    async def inbox(self, session: str, *, after: int = 0, limit: int = 100) -> Sequence[AnyEvent]:
        """Return what lies in a session's inbox, oldest first; less than `limit` if that is long."""
        answer = await self._command("inbox", session=session, after=after, limit=limit)
        return [parse(event) for event in answer["deliveries"]]

    async def ack(self, session: str, *seqs: int) -> int:
        """Take entries out of a session's inbox by their `seq`; return how many were there."""
        return int((await self._command("ack", session=session, seqs=list(seqs)))["acked"])

    async def _command(self, name: str, **said: Any) -> dict[str, Any]:
        """Give a command over a connection that is kept for the next one."""
        self._home.loop()
        try:
            async with self._connecting:
                connection = await self._for_commands()
            return await connection.command(name, **said)
        except Lost as exc:
            raise RelayUnavailable(f"the relay at {self._url} did not answer ({exc})") from exc

    async def _for_commands(self) -> Connection:
        if self._commands is not None and not self._commands.is_gone:
            return self._commands
        await self._drop(self._commands)
        self._commands = None
        connection = Connection(self._ready())
        self._connections.add(connection)
        try:
            async with _Patience(self._url, self._timeout).limit():
                await connection.open(self._url, self._fresh())
        except BaseException:
            await self._drop(connection)
            raise
        self._commands = connection
        return connection

    async def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            self._connections.discard(connection)
            await connection.close()

    def _is_left(self, task: str | None) -> bool:
        """Tell whether nothing comes any more; that is an error for a task, which has not ended."""
        if task is not None and self._home.is_closed:
            raise self._home.closed()
        return self._home.is_closed

    def _ready(self) -> aiohttp.ClientSession:
        self._home.loop()
        assert self._http is not None
        return self._http

    def _fresh(self) -> str:
        return self._token() if callable(self._token) else self._token

    @asynccontextmanager
    async def _subscribed(self, place: _Place, patience: _Patience) -> AsyncIterator[Connection]:
        place.restart()
        connection = Connection(self._ready())
        self._connections.add(connection)
        try:
            async with patience.limit():
                await connection.open(self._url, self._fresh())
                await connection.subscribe(place.wanted())
            yield connection
        finally:
            await self._drop(connection)


class _Place:
    """How far a subscription has been followed."""

    def __init__(self, session: str | None, task: str | None, after: int) -> None:
        self.ended = False
        self.lost = ""
        self._session = session
        self._task = task
        self._after = after
        self._tasks: dict[str, dict[str, Any]] = {}

    def wanted(self) -> Wanted:
        """Return what to subscribe to."""
        return {"session": self._session, "task": self._task, "after": self._after}

    def restart(self) -> None:
        """Forget what a lost connection had begun to tell."""
        self._tasks = {}

    def advance(self, batch: Batch) -> Iterator[AnyEvent | Gap]:
        """Yield what is new in a batch.

        Raises:
            Lost: something is missing; it comes again with the next connection.
        """
        if batch["gap"] is not None and batch["snapshot"] is not None:
            yield from self._leap(*batch["gap"], batch["snapshot"])
        for value in batch["events"]:
            event = parse(value)
            if event.seq <= self._after:
                continue
            if self._task is None and event.seq != self._after + 1:
                raise Lost(f"event {self._after + 1} did not come before event {event.seq}")
            self._after = event.seq
            yield event
        self.ended = batch["end"]

    def _leap(self, first: int, last: int, snapshot: Any) -> Iterator[Gap]:
        self._tasks |= {task["id"]: task for task in snapshot["tasks"]}
        if snapshot["more"] or last <= self._after:
            return
        self._after = last
        yield Gap(first, last, snapshot["seq"], self._tasks)
        self._tasks = {}


class _Patience:
    """How long to wait before a connection is tried again, and when to give up."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._limit: float | None = timeout
        self._deadline: float | None = time.monotonic() + timeout
        self._delay = BACKOFF_FIRST

    def renew(self, limit: float | None) -> None:
        """A connection was made; the next one may take `limit` seconds (None: for ever) from its loss on."""
        self._limit, self._deadline, self._delay = limit, None, BACKOFF_FIRST

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raise Lost when the body takes until we would give up."""
        try:
            async with asyncio.timeout(self._left()):
                yield
        except TimeoutError as exc:
            raise Lost("no answer") from exc

    async def wait(self, why: str) -> None:
        """Wait before the next try.

        Raises:
            RelayUnavailable: it is time to give up.
        """
        if self._deadline is None and self._limit is not None:
            self._deadline = time.monotonic() + self._limit
        left = self._left()
        if left is not None and left <= 0:
            raise RelayUnavailable(
                f"no relay answers at {self._url} ({why}); start one with `hermes-async up` or "
                "`hermes-async relay`"
            )
        delay = self._delay * random.uniform(0.5, 1.0)
        self._delay = min(BACKOFF_LONGEST, self._delay * 2)
        await asyncio.sleep(delay if left is None else min(delay, left))

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()
