"""What a callback is given of its parent: a dict to read, a session to speak in, effects that happen once."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, JsonValue, Strict

from hermes_async.core.arguments import Function, Text, strict
from hermes_async.core.handle import TaskHandle
from hermes_async.core.ledger import Ledger
from hermes_async.core.session import Session
from hermes_async.core.signature import EVENT_BYTES, as_json
from hermes_async.domain.callback import Call
from hermes_async.domain.errors import InvalidInput, UserError
from hermes_async.domain.events import MessageData

T = TypeVar("T")

#: Messages that one call may send.
MOST_MESSAGES: Final = 100
#: What names an effect.
Key = Annotated[str, Strict(), Field(min_length=1, max_length=200)]


class ParentContext(dict[str, Any]):
    """The second argument of every callback: whom it speaks to, and on behalf of which task.

    Its keys are `session`, `session_id`, `parent`, `task_id`, `callback_id` (the same at every try) and
    `attempt` (which try it is, from 1). Everything works in `def`, and in `async def` with `await`.
    """

    def __init__(self, call: Call, ledger: Ledger, session: Callable[[], Session]) -> None:
        self._try = _Try(call, ledger)
        row, parent = call.callback, call.task.birth.parent
        super().__init__(
            session=ParentSession(row.session_id, parent, self._try, session),
            session_id=row.session_id,
            parent=parent,
            task_id=row.task_id,
            callback_id=row.id,
            attempt=row.failures + 1,
        )

    @strict
    def once(self, key: Key, function: Function) -> Any:
        """Return what `function` returns; a later try of this callback gets that without running it again.

        A crash between the effect and the note of it is still possible: give the `callback_id` to whoever
        can recognise a repetition by it. In `async def`, await it; `function` may be one, too.

        Args:
            key: names the effect within this callback.
            function: does it, and returns something that has a JSON form.

        Raises:
            InvalidInput: the key is unfit, or the value has no JSON form.
        """
        return self._try.once_later(key, function) if self._try.on_loop else self._try.once(key, function)

    def close(self) -> list[MessageData]:
        """End the try, and return what was said in it."""
        self._try.is_over = True
        return self._try.said


class ParentSession:
    """The parent's session, as a callback may use it."""

    def __init__(
        self, session_id: str, parent: str | None, attempt: _Try, session: Callable[[], Session]
    ) -> None:
        self.id = session_id
        self.parent = parent
        self._try = attempt
        self._session = session
        self._ordinals = itertools.count(1)

    def __repr__(self) -> str:
        return f"<ParentSession {self.id}>"

    @strict
    def send_message(self, text: Text, data: JsonValue = None) -> Awaitable[None]:
        """Say something in the session, once: it is posted when the callback has returned, and with that.

        It need not be awaited.

        Raises:
            InvalidInput: it has no JSON form or is too large, or there are too many.
        """
        self._try.check()
        if len(self._try.said) >= MOST_MESSAGES:
            raise InvalidInput(f"a callback may send {MOST_MESSAGES} messages, not more: join them")
        shown = as_json({"text": text, "data": data}, "the message", limit=EVENT_BYTES)
        self._try.said.append(MessageData(**shown))
        return _Done()

    def dispatch(self, subagent: str, /, **arguments: Any) -> Any:
        """Start a task of the parent and return its handle; the n-th of a callback is one task at every try.

        In `async def`, await it.

        Raises:
            UnknownAgent: the parent has no such subagent.
            InvalidInput: the arguments do not fit.
            TaskRejected: a limit says no.
            IdempotencyConflict: an earlier try has dispatched something else here.
        """
        self._try.check()
        key = f"{self._try.call.id}:{next(self._ordinals)}"
        dispatching = self._dispatched(subagent, arguments, key)
        return dispatching if self._try.on_loop else self._try.wait_for(dispatching)

    async def _dispatched(self, subagent: str, arguments: Mapping[str, Any], key: str) -> TaskHandle[Any]:
        return await self._session().submit(subagent, arguments, idempotency_key=key)


class _Done:
    """What may be awaited, and has happened already."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


class _Try:
    """One try of a callback, from the loop or from the thread on which its function runs."""

    def __init__(self, call: Call, ledger: Ledger) -> None:
        self.call = call
        self.said: list[MessageData] = []
        self.is_over = False
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._loops_thread = threading.get_ident()
        self._kept: dict[str, JsonValue] | None = None

    @property
    def on_loop(self) -> bool:
        """Whether this is the loop, which must not be blocked."""
        return threading.get_ident() == self._loops_thread

    def check(self) -> None:
        """Raise UserError when the try is over: a thread that nobody could stop goes on."""
        if self.is_over:
            raise UserError(f"this call of {self.call.callback.name!r} took too long, and was given up")

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait on a thread for what happens on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def once(self, key: str, function: Callable[[], Any]) -> Any:
        """Do an effect here, unless it is done."""
        kept = self.wait_for(self._remembered())
        return kept[key] if key in kept else self.wait_for(self._keep(key, function()))

    async def once_later(self, key: str, function: Callable[[], Any]) -> Any:
        """Do an effect on the loop, unless it is done."""
        kept = await self._remembered()
        if key in kept:
            return kept[key]
        value = function()
        return await self._keep(key, await value if inspect.isawaitable(value) else value)

    async def _remembered(self) -> Mapping[str, JsonValue]:
        self.check()
        if self._kept is None:
            self._kept = dict(await self._ledger.remembered(self.call))
        return self._kept

    async def _keep(self, key: str, value: Any) -> Any:
        plain = as_json(value, f"what {key!r} has returned", limit=EVENT_BYTES)
        if not await self._ledger.remember(self.call, key, plain):
            raise UserError(f"callback {self.call.id} is not this worker's any more")
        assert self._kept is not None
        self._kept[key] = plain
        return plain
