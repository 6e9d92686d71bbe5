"""The tree of errors is the one that is drawn, and hints are near."""

from __future__ import annotations

import re

import pytest

from hermes_async.domain import errors
from hermes_async.domain.errors import HermesError, RetryAfter, TaskFailed, did_you_mean
from hermes_async.domain.failure import ErrorInfo, Reason


def drawn() -> dict[str, str]:
    """Every class of the drawing with its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z]\w+)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            if depth:
                parents[found[2]] = path[depth - 1]
    return parents


def test_the_drawing_is_the_tree() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    tree = {
        cls.__name__: cls.__bases__[0].__name__
        for cls in classes
        if issubclass(cls, HermesError) and cls is not HermesError
    }
    assert drawn() == tree


def test_every_error_says_what_it_is() -> None:
    for name in drawn():
        assert getattr(errors, name).__doc__


def test_a_task_error_carries_what_happened() -> None:
    error = ErrorInfo(type="ValueError", message="no")
    exc = TaskFailed("told", task_id="t00-1", reason=Reason.ERROR, error=error)
    assert (str(exc), exc.task_id, exc.reason, exc.error) == ("told", "t00-1", Reason.ERROR, error)


def test_retry_after_explains_itself() -> None:
    assert str(RetryAfter(1.5)) == "asked to try again after 1.5 s"
    assert str(RetryAfter(1.5, "rate limit")) == "rate limit"


@pytest.mark.parametrize(
    ("name", "hint"), [("reserach", "; did you mean 'research'?"), ("zzz", ""), ("", "")]
)
def test_hints_are_near_or_none(name: str, hint: str) -> None:
    assert did_you_mean(name, ["research", "writer"]) == hint
