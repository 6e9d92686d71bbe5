"""What a trace needs to hear of a task's way; the one that nobody has asked for hears nothing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from hermes_async.domain.callback import Call
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.spans import Part, span_id
from hermes_async.domain.task import Task

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
#: Characters of a tracestate that is kept.
_LONGEST = 512


class TraceContext(NamedTuple):
    """W3C trace context: where in which trace something is."""

    traceparent: str
    tracestate: str | None = None

    @property
    def trace_id(self) -> str:
        """The 32 hex digits that name the trace."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """The 16 hex digits that name the span."""
        return self.traceparent[36:52]

    @classmethod
    def read(cls, traceparent: str, tracestate: str | None = None) -> TraceContext | None:
        """Return the context that the headers of a request name; None: none, which is no error."""
        found = _TRACEPARENT.fullmatch(traceparent)
        if not found or not int(found[1], 16) or not int(found[2], 16):
            return None
        kept = tracestate if tracestate and len(tracestate) <= _LONGEST and tracestate.isprintable() else None
        return cls(f"00-{found[1]}-{found[2]}-{int(found[3], 16) & 1:02x}", kept)


def made_up(task_id: str, trace_id: str | None = None) -> TraceContext:
    """Return the context of a task that nobody traces where it is dispatched; a worker may, later on.

    Args:
        task_id: the new task.
        trace_id: of its parent task; a new one by default.
    """
    return TraceContext(
        f"00-{trace_id or secrets.token_hex(16)}-{span_id(task_id, 0, Part.SEND)}-01",
    )


#: Where the request that is served here was made, as its headers say.
_asked: ContextVar[TraceContext | None] = ContextVar("hermes_request_trace", default=None)


def asked() -> TraceContext | None:
    """Return where the request that is served here was made, if it says so."""
    return _asked.get()


@contextmanager
def asking(context: TraceContext | None) -> Iterator[None]:
    """Within this, a request is served that was made in that place of a trace."""
    token = _asked.set(context)
    try:
        yield
    finally:
        _asked.reset(token)


#: Is told what became of a call: None, or its error.
Told = Callable[[ErrorInfo | None], None]


class Tracing(Protocol):
    """Hears of a task's way."""

    def context(self, task_id: str, trace_id: str | None) -> TraceContext:
        """Return the context of a task that is to be dispatched here and now.

        Args:
            task_id: the new task.
            trace_id: of its parent task, if it has one.
        """
        ...

    def turn(self, parent: str, session_id: str) -> AbstractContextManager[object]:
        """Within this, a parent takes a turn in its session."""
        ...

    def sending(self, tasks: Sequence[Task]) -> AbstractContextManager[object]:
        """Within this, new tasks are written."""
        ...

    def attempt(self, task: Task) -> AbstractContextManager[object]:
        """Within this, the agent of a claimed attempt runs."""
        ...

    def ended(self, task: Task, event: AnyEvent | None) -> None:
        """Hear how an attempt has ended, whoever ran it; None: others say so, it is not ours any more."""
        ...

    def calling(self, call: Call) -> AbstractContextManager[Told]:
        """Within this, a callback or webhook is called."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return what a request to another server says of the trace in which it is made."""
        ...

    def flush(self) -> None:
        """Send what was not sent yet, within seconds; this may block."""
        ...


class Untraced:
    """Traces nothing."""

    def context(self, task_id: str, trace_id: str | None) -> TraceContext:
        """Return that of the request, or one that a worker may trace all the same."""
        return asked() or made_up(task_id, trace_id)

    def turn(self, parent: str, session_id: str) -> AbstractContextManager[object]:
        """Do nothing."""
        return _NOTHING

    def sending(self, tasks: Sequence[Task]) -> AbstractContextManager[object]:
        """Do nothing."""
        return _NOTHING

    def attempt(self, task: Task) -> AbstractContextManager[object]:
        """Do nothing."""
        return _NOTHING

    def ended(self, task: Task, event: AnyEvent | None) -> None:
        """Do nothing."""

    def calling(self, call: Call) -> AbstractContextManager[Told]:
        """Do nothing."""
        return _UNTOLD

    def headers(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def flush(self) -> None:
        """Do nothing."""


def _tell_nobody(error: ErrorInfo | None) -> None:
    """Do nothing."""


_NOTHING = nullcontext()
_UNTOLD: AbstractContextManager[Told] = nullcontext(_tell_nobody)
UNTRACED = Untraced()
