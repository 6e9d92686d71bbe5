"""One subscription's place in a session's log: it turns what comes next into batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hermes_async.core.ports import Page, Snapshot, Store
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.relay.wire import Batch, Portrait

#: Events in one batch.
BATCH_EVENTS = 64
#: Bytes of JSON in one batch; a single larger event or task travels alone.
BATCH_BYTES = 256_000


@dataclass(frozen=True)
class Topic:
    """What is listened to: a session, or one task of it."""

    session_id: str
    task_id: str | None = None

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
        self._unsure = topic.task_id is not None  # whether the task's end lies behind `after`
        self._portraits: Iterator[Batch] = iter(())

    async def read(self, newest: int) -> Batch | None:
        """Return the next batch, or None when there is nothing for it in this stretch of the log.

        Args:
            newest: the log's last `seq` before this call, as its reader knows it.
        """
        portrait = next(self._portraits, None)
        if portrait is not None:
            return portrait
        page = await self._store.events(self.topic.session_id, self.after, self._limit)
        if page.gap is not None:
            return await self._leap(page.gap)
        stretch = self._stretch(page)
        known = max([newest, *(event.seq for event in page.events[-1:])])
        caught_up = len(page.events) < self._limit and stretch.covers(page)
        ended = stretch.ended or (caught_up and self._unsure and await self._is_over(stretch.after, known))
        self.after, self.known, self.caught_up, self.ended = stretch.after, known, caught_up, ended
        return self.topic.batch(stretch.events, end=ended) if stretch.events or ended else None

    def _stretch(self, page: Page) -> _Stretch:
        """Return as much of the page as a batch holds."""
        stretch = _Stretch(self.after)
        room = BATCH_BYTES
        for event in page.events:
            if self.topic.covers(event.task_id):
                room -= len(event.model_dump_json())
                if stretch.events and room < 0:
                    break
                stretch.events.append(event.model_dump(mode="json"))
            stretch.after = event.seq
            if self._is_end(event):
                stretch.ended = True
                break
        return stretch

    def _is_end(self, event: AnyEvent) -> bool:
        ours = self.topic.task_id is not None and self.topic.covers(event.task_id)
        return ours and event.type in TERMINAL_TYPES

    async def _is_over(self, after: int, known: int) -> bool:
        """Tell whether the task ended at or before `after`."""
        task = await self._store.load(self.topic.task_id or "")
        if task is not None and not task.status.is_terminal:
            self._unsure = after > known  # a place that does not exist yet hides the end
            return False
        return task is None or await self._store.last_seq(self.topic.session_id) <= after

    async def _leap(self, gap: tuple[int, int]) -> Batch:
        """Go on behind the gap, with a snapshot in its place."""
        snapshot = await self._store.snapshot(self.topic.session_id)
        self.after = max(self.after, gap[1])
        self._unsure = self.topic.task_id is not None
        self.caught_up = False
        self._portraits = _portraits(self.topic, gap, snapshot)
        return next(self._portraits)


@dataclass
class _Stretch:
    """What of a page goes into one batch, and how far that leads."""

    after: int
    events: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    def covers(self, page: Page) -> bool:
        """Tell whether nothing of the page is left."""
        return not page.events or page.events[-1].seq <= self.after


def _portraits(topic: Topic, gap: tuple[int, int], snapshot: Snapshot) -> Iterator[Batch]:
    """Yield the snapshot in batches of bearable size, at least one."""
    tasks: list[dict[str, Any]] = []
    room = BATCH_BYTES
    for task in snapshot.tasks:
        if not topic.covers(task.id):
            continue
        shown = task.as_json()
        room -= len(json.dumps(shown))
        if tasks and room < 0:
            yield topic.batch(gap=gap, snapshot={"seq": snapshot.seq, "tasks": tasks, "more": True})
            tasks, room = [], BATCH_BYTES
        tasks.append(shown)
    yield topic.batch(gap=gap, snapshot={"seq": snapshot.seq, "tasks": tasks, "more": False})
