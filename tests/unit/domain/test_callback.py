"""Callbacks: who is told of what, under which name, and when again."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.callback import (
    AFTER,
    TRIES,
    Callback,
    CallbackKind,
    callback_id,
    delay_after,
    name_of,
    public_name,
    wanted,
)
from hermes_async.domain.lifecycle import TERMINAL_TYPES

URL = "https://example.com:8443/T0/B0/secret?token=1"
ALL: dict[str, Any] = {
    "callbacks": {"on_complete": "done", "on_failure": "failed", "on_progress": "going"},
    "webhook": {"url": URL},
}


def spec(**options: Any) -> SubagentSpec:
    return SubagentSpec(id="echo", **options)


def test_five_tries_take_less_than_a_minute() -> None:
    longest = [delay_after(failures, 1.0) for failures in range(1, TRIES)]
    assert longest == [2.0, 5.0, 12.5, 31.25]
    assert [delay_after(failures, 0.5) for failures in range(1, TRIES)] == [1.0, 2.5, 6.25, 15.625]
    assert delay_after(1, 0.0) == 0.0
    assert (delay_after(TRIES, 0.5), delay_after(TRIES + 1, 0.5)) == (None, None)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, []),
        ({"callbacks": {"on_complete": "done"}}, ["on_complete"]),
        ({"callbacks": {"on_failure": "failed"}}, ["on_failure"]),
        ({"callbacks": {"on_progress": "going"}}, ["on_progress"]),
        ({"webhook": {"url": URL}}, ["webhook"]),
        (ALL, ["on_progress", "on_complete", "on_failure", "webhook"]),
    ],
)
def test_what_a_subagent_asks_for_has_names(options: dict[str, Any], kinds: list[str]) -> None:
    assert list(wanted(spec(**options))) == kinds
    assert [kind for kind in CallbackKind if name_of(spec(**options), kind)] == kinds


def test_every_end_of_a_task_that_began_is_told_to_all() -> None:
    for type_ in TERMINAL_TYPES - {"task.rejected"}:
        assert CallbackKind.WEBHOOK in AFTER[type_]
        assert {CallbackKind.ON_COMPLETE, CallbackKind.ON_FAILURE} & set(AFTER[type_])


def test_only_progress_has_many_ids() -> None:
    ids = [callback_id("t00-1", kind, seq) for kind in CallbackKind for seq in (4, 5)]
    assert sorted(set(ids)) == [
        "t00-1:on_complete",
        "t00-1:on_failure",
        "t00-1:on_progress:4",
        "t00-1:on_progress:5",
        "t00-1:webhook",
    ]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [(CallbackKind.WEBHOOK, "https://example.com:8443"), (CallbackKind.ON_COMPLETE, "done")],
)
def test_the_path_of_a_webhook_is_not_shown_to_everybody(kind: CallbackKind, shown: str) -> None:
    name = name_of(spec(**ALL), kind)
    row = Callback(id="t00-1:x", kind=kind, name=name, session_id="chat", task_id="t00-1", seq=1)
    assert public_name(row) == shown
