"""Ids tell where a task's keys live, and never repeat."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_async.core.ids import (
    PARTITIONS,
    checked_idempotency_key,
    checked_session_id,
    new_session_id,
    new_task_id,
    new_traceparent,
    partition,
    partition_of_task,
)
from hermes_async.domain.errors import InvalidInput, UnknownTask


@given(session_id=st.text(min_size=1))
def test_a_task_is_found_where_its_session_is(session_id: str) -> None:
    if session_id.isprintable():
        assert partition_of_task(new_task_id(checked_session_id(session_id[:200]))) == partition(
            session_id[:200]
        )


def test_the_partition_of_a_session_never_changes() -> None:
    assert [partition(name) for name in ("chat-7", "a", "ü")] == [1, 3, 5]  # what is stored relies on it


def test_sessions_spread_over_all_partitions() -> None:
    assert {partition(new_session_id()) for _ in range(1000)} == set(range(PARTITIONS))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t07",
        "t16-x",
        "txx-1",
        "7-1",
        "s07-1",
        "t-1",
        "t-01-x",
        "t²-1",
        "tt1-2",
        "t00-\ud800",
        "t00-a b",
        "t00-a\n",
    ],
)
def test_what_is_no_task_id_is_an_unknown_task(text: str) -> None:
    with pytest.raises(UnknownTask, match="is not a task id"):
        partition_of_task(text)


@pytest.mark.parametrize("check", [checked_session_id, checked_idempotency_key])
@pytest.mark.parametrize("text", ["", "x" * 201, "a\nb", "\ud800", "\x00", 5, b"s"])
def test_what_cannot_be_part_of_a_key_is_refused(check: object, text: object) -> None:
    assert callable(check)
    with pytest.raises(InvalidInput, match="is a text of 1 to 200 printable characters"):
        check(text)


def test_ids_are_fresh_and_readable() -> None:
    ids = {new_task_id("chat") for _ in range(100)} | {new_session_id() for _ in range(100)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"(t\d\d|s)-[0-9a-hjkmnp-tv-z]{26}", id) for id in ids)


def test_a_trace_is_a_w3c_one() -> None:
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", new_traceparent())
