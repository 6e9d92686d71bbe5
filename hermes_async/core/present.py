"""Which attempt the code that asks belongs to, in coroutines, threads and processes alike; logs tell it."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

from hermes_async.domain.task import Task

_present: ContextVar[Task | None] = ContextVar("hermes_attempt", default=None)


def present() -> Task | None:
    """Return the record, as it was claimed, of the attempt in which this is called."""
    return _present.get()


class Presence:
    """Within this, a claimed task is present."""

    __slots__ = ("_task", "_token")

    def __init__(self, task: Task) -> None:
        self._task = task
        self._token: Token[Task | None] | None = None

    def __enter__(self) -> None:
        self._token = _present.set(self._task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _present.reset(self._token)
