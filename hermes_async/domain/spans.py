"""Spans: the ids that all processes agree on, what a receiver keeps, and their tree as rows of a waterfall.

Whoever ends an attempt that was lost with its worker can write the very spans under which that worker has
hung others, because their ids are derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue

from hermes_async.domain.timeline import Stretch

#: The attributes of ours that tell to what a span belongs.
TASK_ID: Final = "hermes.task.id"
ATTEMPT: Final = "hermes.task.attempt"
STATUS: Final = "hermes.task.status"
DEPTH: Final = "hermes.task.depth"

#: Spans that are drawn, at most.
_MOST: Final = 2_000


class Part(StrEnum):
    """The spans of a task whose ids are derived."""

    #: Its dispatch, where nobody who traces has dispatched it.
    SEND = "send"
    #: Its time in the queue before an attempt.
    WAIT = "wait"
    #: An attempt, from its claim to what the record says of its end.
    PROCESS = "process"
    #: The agent at work, within an attempt.
    AGENT = "agent"


def span_id(task_id: str, attempt: int, part: Part) -> str:
    """Return the 16 hex digits of a span that several processes must agree on."""
    return blake2b(f"{task_id}:{attempt}:{part.value}".encode(), digest_size=8).hexdigest()


class Span(BaseModel):
    """One span that has ended; times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    trace_id: str
    span_id: str
    parent_id: str | None = None
    name: str
    kind: str = "internal"
    start: float
    end: float
    #: What its status or its exception says, if it is an error.
    error: str | None = None
    attributes: Mapping[str, JsonValue] = {}
    #: The `service.name` of the process.
    service: str = ""

    @property
    def task_id(self) -> str | None:
        """The task to which it belongs."""
        found = self.attributes.get(TASK_ID)
        return found if isinstance(found, str) else None

    @property
    def attempt(self) -> int:
        """The attempt to which it belongs, or 0."""
        found = self.attributes.get(ATTEMPT)
        return found if isinstance(found, int) else 0


def stretches(spans: Iterable[Span], task_id: str | None = None) -> list[Stretch]:
    """Return the tree of a trace as the rows of a waterfall; a span that was sent twice is there once.

    Args:
        spans: those of one trace, in any order.
        task_id: only the dispatch of this task and what is below it; by default all.
    """
    known = {span.span_id: span for span in spans}
    if len(known) > _MOST:
        known = dict(sorted(known.items(), key=lambda item: item[1].start)[:_MOST])
    parents = {span.span_id: _parent(span, known) for span in known.values()}
    below: dict[str | None, list[Span]] = {}
    for span in sorted(known.values(), key=lambda span: (span.start, -span.end)):
        below.setdefault(parents[span.span_id], []).append(span)
    tops = below.get(None, [])
    if task_id is not None:
        tops = _tops_of(task_id, known, parents) or tops
    return list(_rows(tops, below))


def _rows(tops: Sequence[Span], below: Mapping[str | None, Sequence[Span]]) -> Iterable[Stretch]:
    """Yield the rows of trees, depth first; a hostile sender may have made rings of parents."""
    stack = [(span, 0) for span in reversed(tops)]
    seen: set[str] = set()
    while stack:
        span, depth = stack.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        yield Stretch(
            name=_name(span),
            start=span.start,
            end=span.end,
            depth=depth,
            fault=span.error or "",
            note=span.service if depth == 0 else "",
            task_id=span.task_id,
            attempt=span.attempt,
        )
        stack += [(part, depth + 1) for part in reversed(below.get(span.span_id, ()))]


def _name(span: Span) -> str:
    """Return the name of a span; an attempt has its number."""
    is_attempt = span.span_id == span_id(span.task_id or "", span.attempt, Part.PROCESS)
    return f"{span.name} #{span.attempt}" if is_attempt else span.name


def _parent(span: Span, known: Mapping[str, Span]) -> str | None:
    """Return the parent of a span; if a killed process has taken it along, the agent that was at work."""
    if span.parent_id is None or span.parent_id in known:
        return span.parent_id
    own = {part: span_id(span.task_id or "", span.attempt, part) for part in Part}
    is_within = (
        span.span_id not in own.values()
    )  # an attempt and its wait are below what somebody else has sent
    return own[Part.AGENT] if is_within and own[Part.AGENT] in known else None


def _tops_of(task_id: str, known: Mapping[str, Span], parents: Mapping[str, str | None]) -> list[Span]:
    """Return the spans of a task that are not below another one of it."""
    own = [span for span in known.values() if span.task_id == task_id]
    ids = {span.span_id for span in own}
    tops = [span for span in own if parents[span.span_id] not in ids]
    return sorted(tops, key=lambda span: span.start)
