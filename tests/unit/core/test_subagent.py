"""A subagent is a value; making one has no side effect."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.errors import UserError
from hermes_async.domain.task import Lane


@subagent
async def research(ctx: TaskContext, topic: str) -> str:
    """Find sources.

    And weigh them.
    """
    return topic


@subagent(name="writer", timeout=3, retry_limit=2, pool="async")
def write(ctx: TaskContext) -> int:
    return 1


@subagent()
def count(ctx: TaskContext) -> int:
    return 1


def test_bare_it_takes_name_and_description_of_the_function() -> None:
    assert isinstance(research, Subagent)
    assert (research.name, research.spec.id, research.spec.agent) == ("research",) * 3
    assert research.description == "Find sources.\n\nAnd weigh them."
    assert count.description == ""


def test_options_are_those_of_agents_yaml() -> None:
    assert (write.name, write.spec.id, write.spec.timeout, write.spec.retries) == ("writer", "writer", 3, 2)
    assert research.spec.timeout == 600


def test_the_kind_of_function_picks_the_lane_unless_told() -> None:
    assert (research.lane, count.lane, write.lane) == (Lane.ASYNC, Lane.PROCESS, Lane.ASYNC)
    assert (research.is_async, count.is_async) == (True, False)


def test_the_function_itself_stays_as_it_was() -> None:
    context: Any = None
    assert write.function(context) == 1


def test_options_make_another_value() -> None:
    quick = research.options(timeout=1, async_=False)
    assert (quick.spec.timeout, quick.spec.async_, research.spec.timeout) == (1, False, 600)
    assert quick.options(retry_limit=1).spec.timeout == 1
    assert quick.options(async_=True).spec.async_ is True
    assert (quick.name, quick.function) == (research.name, research.function)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"timeout": "3"}, "cannot have this timeout: Input should be a valid number"),
        ({"timeot": 3}, "has no option 'timeot'; did you mean 'timeout'?"),
        ({"timeout": -1}, "cannot have this timeout: Input should be greater than 0"),
        ({"retry": {"initial": None}}, "cannot have this retry.initial: Input should be a valid number"),
        ({"webhook": {"url": "ftp:x"}}, "cannot have this webhook.url: must begin with https:// or http://"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_once_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    for make in (lambda: subagent(**options)(research.function), lambda: research.options(**options)):
        with pytest.raises(UserError) as caught:
            make()
        assert str(caught.value).startswith(f"subagent 'research' {sentence}")
        assert "\n" not in str(caught.value)


def test_lists_are_as_good_as_tuples() -> None:
    quick = research.options(retry={"non_retryable": ["ValueError"]}, settings={"stop_sequences": ["."]})
    assert quick.spec.retry.non_retryable == ("ValueError",)
    assert quick.spec.settings.stop_sequences == (".",)


def test_an_unknown_pool_is_refused() -> None:
    with pytest.raises(UserError, match="pool must be async or process, not 'thread'"):
        subagent(pool="thread")(research.function)
