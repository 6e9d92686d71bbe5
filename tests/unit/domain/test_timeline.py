"""The waterfall that a log alone can tell."""

from __future__ import annotations

from typing import Any

from hermes_async.domain.events import AnyEvent, QueuedData, queued, task_event
from hermes_async.domain.task import Task
from hermes_async.domain.timeline import Stretch, timeline
from tests.support.values import make_event, make_task


def at(time: float, event: AnyEvent) -> AnyEvent:
    return event.model_copy(update={"time": time})


def attempt(task: Task, number: int) -> Task:
    return task.model_copy(update={"attempt": number})


def shown(rows: list[Stretch]) -> list[tuple[Any, ...]]:
    return [(row.depth, row.name, row.start, row.end, row.fault) for row in rows]


def test_waits_attempts_and_the_end_are_stretches() -> None:
    task = make_task()
    first, second = attempt(task, 1), attempt(task, 2)
    events = [
        at(10, queued(task)),
        at(11, make_event(first, "task.started")),
        at(12, make_event(first, "task.progress", n=1)),
        at(14, make_event(first, "task.retrying")),
        at(15, make_event(second, "task.started")),
        at(18, make_event(second, "task.completed")),
        at(19, make_event(second, "callback.succeeded")),
        at(20, make_event(second, "callback.dead")),
    ]
    assert shown(timeline(task, events)) == [
        (0, "task echo", 10, 18, ""),
        (1, "wait", 10, 11, ""),
        (1, "attempt 1 of echo", 11, 14, "ValueError: no ❄"),
        (1, "wait", 14, 15, ""),
        (1, "attempt 2 of echo", 15, 18, ""),
        (1, "callback told", 19, 19, ""),
        (1, "callback told", 20, 20, "given up: ValueError: no ❄"),
    ]


def test_a_lost_attempt_is_marked_and_what_goes_on_has_no_end() -> None:
    task = make_task()
    events = [
        at(10, queued(task)),
        at(11, make_event(attempt(task, 1), "task.started")),
        at(14, make_event(attempt(task, 1), "task.attempt_lost")),
        at(15, make_event(attempt(task, 2), "task.started")),
        at(16, make_event(attempt(task, 2), "task.input_required")),
    ]
    assert shown(timeline(task, events)) == [
        (0, "task echo", 10, None, ""),
        (1, "wait", 10, 11, ""),
        (1, "attempt 1 of echo", 11, 14, "lost: worker lost"),
        (1, "wait", 14, 15, ""),
        (1, "attempt 2 of echo", 15, None, ""),
        (2, "question", 16, None, ""),
    ]


def test_child_tasks_are_part_of_the_attempt_that_dispatched_them() -> None:
    parent, child, stranger = make_task(), make_task(agent="child"), make_task(agent="stranger")
    born = task_event(child, "task.queued", QueuedData(subagent="child", parent_task_id=parent.id))
    events = [
        at(10, queued(parent)),
        at(11, make_event(attempt(parent, 1), "task.started")),
        at(12, born),
        at(12, queued(stranger)),
        at(13, make_event(attempt(child, 1), "task.started")),
        at(14, make_event(attempt(child, 1), "task.failed")),
        at(15, make_event(attempt(parent, 1), "task.completed")),
    ]
    assert shown(timeline(parent, events)) == [
        (0, "task echo", 10, 15, ""),
        (1, "wait", 10, 11, ""),
        (1, "attempt 1 of echo", 11, 15, ""),
        (2, "task child", 12, 14, "ValueError: no ❄"),
        (3, "wait", 12, 13, ""),
        (3, "attempt 1 of child", 13, 14, "ValueError: no ❄"),
    ]
    assert [row.name for row in timeline(child, events)] == ["task child", "wait", "attempt 1 of child"]


def test_a_task_that_never_began_ends_with_its_wait() -> None:
    task = make_task()
    events = [at(10, queued(task)), at(12, make_event(task, "task.failed"))]
    assert shown(timeline(task, events)) == [
        (0, "task echo", 10, 12, "ValueError: no ❄"),
        (1, "wait", 10, 12, ""),
    ]


def test_a_record_whose_events_are_gone_still_tells_something() -> None:
    task = make_task(attempt=2, status="completed", created_at=10.0, started_at=12.0, finished_at=15.0)
    rows = timeline(task, [])
    assert shown(rows) == [(0, "task echo", 10, 15, ""), (1, "attempt 2 of echo", 12, 15, "")]
    assert "no longer kept" in rows[0].note
