"""One subscription's place in a session's log: it turns what comes next into batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hermes_async.core.ports import Snapshot, Store
from hermes_async.core.records import seen
from hermes_async.domain.events import UNREADABLE
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.relay.window import Told, Window
from hermes_async.relay.wire import Batch, Portrait

#: Events in one batch.
BATCH_EVENTS = 128
#: Events of the first read; a reader that begins must not take 128 large ones into memory for a batch of 4.
STRIDE = 4
#: Bytes of JSON in one batch; a single larger event or task travels alone.
BATCH_BYTES = 256_000
#: How the JSON of most batches ends.
_PLAIN = json.dumps({"gap": None, "snapshot": None, "end": False})


@dataclass(frozen=True)
class Topic:
    """What is listened to: a session, or one task of it."""

    session_id: str
    task_id: str | None = None

    @cached_property
    def head(self) -> str:
        """How the JSON of a batch about the topic begins."""
        return f'{{"session":{json.dumps(self.session_id)},"task":{json.dumps(self.task_id)},'

    def covers(self, task_id: str | None) -> bool:
        """Tell whether news of that task belong to the topic."""
        return self.task_id is None or task_id == self.task_id

    def batch(
        self,
        events: Sequence[dict[str, Any]] = (),
        *,
        gap: tuple[int, int] | None = None,
        snapshot: Portrait | None = None,
        end: bool = False,
    ) -> Batch:
        """Return a batch about this topic."""
        return {
            "session": self.session_id,
            "task": self.task_id,
            "events": list(events),
            "gap": gap,
            "snapshot": snapshot,
            "end": end,
        }


@dataclass(frozen=True)
class Portion:
    """A batch whose events are JSON already."""

    topic: Topic
    events: Sequence[Told] = ()
    gap: tuple[int, int] | None = None
    snapshot: Portrait | None = None
    end: bool = False

    def batch(self) -> Batch:
        """Return it as values."""
        events = [json.loads(one.text) for one in self.events]
        return self.topic.batch(events, gap=self.gap, snapshot=self.snapshot, end=self.end)

    def text(self) -> str:
        """Return it as JSON."""
        rest = _PLAIN
        if self.gap or self.end:
            rest = json.dumps({"gap": self.gap, "snapshot": self.snapshot, "end": self.end})
        return f'{self.topic.head}"events":[{",".join(one.text for one in self.events)}],{rest[1:]}'


class Tail:
    """Reads a topic from `after` on, no more than one batch ahead of whoever sends it.

    A read that is cancelled or fails moves nothing: the next one returns the same.
    """

    def __init__(self, store: Store, topic: Topic, after: int, limit: int = BATCH_EVENTS) -> None:
        self.topic = topic
        #: The `seq` up to which all was returned that belongs to the topic.
        self.after = after
        #: The topic is a task that is over, and all of it was read.
        self.ended = False
        #: All was read that there was at the last look.
        self.caught_up = False
        #: How far the log had come at the last look.
        self.known = 0
        self._store = store
        self._limit = limit
        self._stride = min(limit, STRIDE)  # events to read at once: about as many as a batch holds
        self._unsure = topic.task_id is not None  # whether the task's end lies behind `after`
        self._portraits: Iterator[Portion] = iter(())

    async def read(self, newest: int) -> Batch | None:
        """Return the next batch, or None when there is nothing for it in this stretch of the log.

        Args:
            newest: the log's last `seq` before this call, as its reader knows it.
        """
        portion = await self.next(newest)
        return portion.batch() if portion else None

    async def next(self, newest: int, window: Window | None = None) -> Portion | None:
        """Return the same, ready to be sent; from the window, if it reaches back far enough."""
        portrait = next(self._portraits, None)
        if portrait is not None:
            return portrait
        asked, is_cut = self._limit, False
        told = window.since(self.after, asked) if window else None
        if told is None:
            asked = self._stride
            page = await self._store.events(self.topic.session_id, self.after, asked)
            if page.gap is not None:
                return await self._leap(page.gap)
            told, is_cut = [Told.of(event) for event in page.events], page.is_cut
        taken, after, ended = self._stretch(told)
        last = told[-1].seq if told else 0
        known = max(newest, last)
        whole = last <= after
        caught_up = whole and len(told) < asked and not is_cut
        ended = ended or (caught_up and self._unsure and await self._is_over(after, known))
        self.after, self.known, self.caught_up, self.ended = after, known, caught_up, ended
        self._stride = min(self._limit, 2 * self._stride) if whole else max(1, len(taken))
        return Portion(self.topic, taken, end=ended) if taken or ended else None

    def _stretch(self, told: Sequence[Told]) -> tuple[list[Told], int, bool]:
        """Return as much as a batch holds, how far that leads, and whether it is the end."""
        taken: list[Told] = []
        after, room = self.after, BATCH_BYTES
        for one in told:
            if self.topic.covers(one.task_id):
                room -= one.size
                if taken and room < 0:
                    break
                taken.append(one)
            after = one.seq
            if one.type == UNREADABLE:
                self._unsure = self.topic.task_id is not None
            if one.type in TERMINAL_TYPES and one.task_id == self.topic.task_id:
                return taken, after, True
        return taken, after, False

    async def _is_over(self, after: int, known: int) -> bool:
        """Tell whether the task ended at or before `after`."""
        task = await seen(self._store, self.topic.task_id or "")
        if task is not None and not task.status.is_terminal:
            self._unsure = after > known  # a place that does not exist yet hides the end
            return False
        return task is None or await self._store.last_seq(self.topic.session_id) <= after

    async def _leap(self, gap: tuple[int, int]) -> Portion:
        """Go on behind the gap, with a snapshot in its place."""
        snapshot = await self._store.snapshot(self.topic.session_id)
        self.after = max(self.after, gap[1])
        self._unsure = self.topic.task_id is not None
        self.caught_up = False
        self._portraits = _portraits(self.topic, gap, snapshot)
        return next(self._portraits)


def _portraits(topic: Topic, gap: tuple[int, int], snapshot: Snapshot) -> Iterator[Portion]:
    """Yield the snapshot in batches of bearable size, at least one."""
    tasks: list[dict[str, Any]] = []
    room = BATCH_BYTES
    for task in snapshot.tasks:
        if not topic.covers(task.id):
            continue
        shown = task.as_json()
        room -= len(json.dumps(shown))
        if tasks and room < 0:
            yield Portion(topic, gap=gap, snapshot={"seq": snapshot.seq, "tasks": tasks, "more": True})
            tasks, room = [], BATCH_BYTES
        tasks.append(shown)
    yield Portion(topic, gap=gap, snapshot={"seq": snapshot.seq, "tasks": tasks, "more": False})
