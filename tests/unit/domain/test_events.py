"""One envelope for all news: its JSON, its ids, and who must not miss what."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from hermes_async.domain.events import (
    ADAPTER,
    CLASSES,
    INBOX_TYPES,
    LONGEST_TYPE,
    UNREADABLE,
    end_of,
    parse,
    queued,
)
from hermes_async.domain.lifecycle import TERMINAL_TYPES, apply
from tests.support.values import DATA, make_event, make_task


@pytest.mark.parametrize("type_", sorted(CLASSES))
def test_an_event_survives_json(type_: str) -> None:
    event = make_event(make_task(attempt=3), type_, n=7).model_copy(update={"seq": 12, "time": 1.5})
    text = event.model_dump_json()
    for read in (ADAPTER.validate_json(text), parse(json.loads(text)), parse(event.model_dump(mode="json"))):
        assert read == event
        assert type(read) is CLASSES[type_]
        assert type(read.data) is type(DATA[type_])


def test_the_envelope_is_the_same_for_all() -> None:
    expected = {"seq", "id", "type", "time", "session_id", "task_id", "agent", "attempt", "trace_id", "data"}
    for type_ in CLASSES:
        assert make_event(make_task(), type_).model_dump().keys() == expected


@pytest.mark.parametrize("type_", sorted(CLASSES))
def test_an_id_names_the_same_fact_again(type_: str) -> None:
    task = make_task(attempt=2)
    assert make_event(task, type_).id == make_event(task, type_).id
    assert make_event(task, type_).ordinal == 0
    assert make_event(task, type_, n=5).id == f"{task.id}:2:5"
    assert make_event(task, type_, n=5).ordinal == 5


def test_different_facts_of_an_attempt_have_different_ids() -> None:
    task = make_task()
    assert len({make_event(task, type_).id for type_ in CLASSES}) == len(CLASSES)


def test_the_first_event_tells_who_was_asked() -> None:
    task = make_task("chat", options={"priority": 9})
    event = queued(task)
    assert (event.type, event.id) == ("task.queued", f"{task.id}:0:queued")
    assert (event.session_id, event.task_id, event.agent) == ("chat", task.id, "echo")
    assert (event.trace_id, event.data.priority) == (task.birth.trace_id, 9)


def test_a_parent_must_not_miss_ends_questions_and_messages() -> None:
    assert TERMINAL_TYPES | {"task.input_required", "session.message"} == INBOX_TYPES


@pytest.mark.parametrize("type_", sorted(TERMINAL_TYPES))
def test_a_record_tells_the_end_of_its_task(type_: str) -> None:
    task = make_task()
    begun = task if type_ == "task.rejected" else apply(task, make_event(task, "task.started"))
    event = make_event(begun, type_)
    usage = getattr(event.data, "usage", None)  # counted while it runs
    assert end_of(apply(begun, event).model_copy(update={"usage": usage})) == event


def test_what_a_newer_version_says_beyond_what_is_known_is_passed_over() -> None:
    event = make_event(make_task(), "task.failed").model_copy(update={"seq": 4})
    plain = event.model_dump(mode="json")
    error, usage = plain["data"]["error"] | {"more": 1}, plain["data"]["usage"] | {"more": 1}
    assert (
        parse(plain | {"more": 1, "data": plain["data"] | {"error": error, "usage": usage, "x": 1}}) == event
    )


def test_an_event_that_cannot_be_read_keeps_its_place() -> None:
    event = make_event(make_task(), "task.started").model_copy(update={"seq": 4})
    plain = event.model_dump(mode="json")
    for wrong in ({"type": "task.exploded"}, {"data": {}}, {"type": ["?"]}, {"type": "x" * 5_000}):
        read = parse(plain | wrong)
        assert (read.seq, read.id, read.task_id, read.type) == (4, event.id, event.task_id, UNREADABLE)
        assert read.data.type == str((plain | wrong)["type"])[:LONGEST_TYPE]
    with pytest.raises(ValidationError):
        parse({"type": "task.exploded"})
