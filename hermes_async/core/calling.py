"""Calling one function: on the loop or on a thread, and whatever it does, it ends no process."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hermes_async.core.callbacks import Dead, Failed, Outcome, Succeeded
from hermes_async.core.ledger import Ledger
from hermes_async.core.parent_context import ParentContext
from hermes_async.core.runner import raised
from hermes_async.core.session import Session
from hermes_async.domain.callback import CALLER_LOST, Call, CallbackKind, delay_after
from hermes_async.domain.errors import did_you_mean
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.lifecycle import LONGEST_DELAY
from hermes_async.domain.task import TaskProgress, TaskResult

Function = Callable[[Any, ParentContext], Any]
#: Opens the session of a parent.
Sessions = Callable[[str, str | None], Session]


class Functions:
    """The sender of a process that calls functions.

    Args:
        functions: by the names that agents.yaml gives them.
        ledger: keeps what effects came to.
        sessions: opens sessions for callbacks that dispatch.
    """

    def __init__(self, functions: Mapping[str, Function], ledger: Ledger, sessions: Sessions) -> None:
        self._functions = functions
        self._ledger = ledger
        self._sessions = sessions
        #: Threads whose call was given up, and that go on all the same.
        self.strays: set[threading.Thread] = set()

    async def send(self, call: Call, result: TaskResult) -> Outcome:
        """Call the function, and tell what came of it."""
        row, function = call.callback, self._functions.get(call.callback.name)
        if delay_after(row.failures, 0.0) is None:  # the last try has ended its process
            return Dead(row.log[-1].error if row.log else CALLER_LOST)
        if function is None:
            return self.failed(call, self._unknown(row.name))
        birth = call.task.birth
        context = ParentContext(call, self._ledger, lambda: self._sessions(birth.session_id, birth.parent))
        news = TaskProgress.of(call.task) if row.kind is CallbackKind.ON_PROGRESS else result
        try:
            await self._called(function, news, context)
        except BaseException as error:  # SystemExit, too: it is the function's, not ours
            what = raised(error)
            return self.failed(call, what.error, what.retry_after or 0.0)
        finally:
            said = context.close()
        return Succeeded(tuple(said))

    def failed(self, call: Call, error: ErrorInfo, wish: float = 0.0) -> Outcome:
        """Return what follows from a failed try: another one, after `wish` seconds at least, or none."""
        delay = delay_after(call.callback.failures + 1, random.random())
        return Dead(error) if delay is None else Failed(error, min(max(delay, wish), LONGEST_DELAY))

    async def _called(
        self, function: Function, news: TaskResult | TaskProgress, context: ParentContext
    ) -> None:
        if is_async(function):
            await function(news, context)
        else:
            await self._on_thread(function, news, context)

    async def _on_thread(self, function: Function, *args: Any) -> None:
        """Call it on a thread of its own: one that hangs holds up nobody, not even the end of the process."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                variables.run(function, *args)
            except BaseException as error:
                errors.append(error)
            finally:
                self.strays.discard(thread)
                with suppress(RuntimeError):  # the loop is closed: it was given up long ago
                    loop.call_soon_threadsafe(done.set)

        variables = contextvars.copy_context()
        thread = threading.Thread(target=run, name=f"hermes-callback {function!r:.60}", daemon=True)
        thread.start()
        try:
            await done.wait()
        except asyncio.CancelledError:
            if thread.is_alive():
                self.strays.add(thread)
            raise
        if errors:
            raise errors[0]

    def _unknown(self, name: str) -> ErrorInfo:
        cure = did_you_mean(name, self._functions) or "; restart the callbacks worker when it is new"
        return ErrorInfo(type="UnknownCallback", message=f"no callback is named {name!r} here{cure}")


def is_async(function: Function) -> bool:
    """Tell whether a function, or an object that can be called, is to be awaited."""
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
