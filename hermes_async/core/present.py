"""Which attempt the code that asks belongs to, in coroutines, threads and processes alike; logs tell it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType

from hermes_async.domain.task import Task

_present: ContextVar[Task | None] = ContextVar("hermes_attempt", default=None)
_NOTHING = nullcontext()


def present() -> Task | None:
    """Return the record, as it was claimed, of the attempt in which this is called."""
    return _present.get()


class Presence:
    """Within this, a claimed task is present.

    Args:
        task: the record.
        inner: what is entered after it, and left before.
    """

    # A class, because each attempt has one, and a generator takes twice as long.
    __slots__ = ("_inner", "_task", "_token")

    def __init__(self, task: Task, inner: AbstractContextManager[object] = _NOTHING) -> None:
        self._task = task
        self._inner = inner
        self._token: Token[Task | None] | None = None

    def __enter__(self) -> None:
        self._token = _present.set(self._task)
        self._inner.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._inner.__exit__(kind, error, trace)
        finally:
            if self._token is not None:
                _present.reset(self._token)
