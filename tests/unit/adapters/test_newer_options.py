"""What a newer version writes into a task's options does not keep this one from running the task."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from hermes_async.adapters.redis_store.codec import decode_birth, encode_birth
from hermes_async.domain.agent import RunLimits, SubagentSpec
from hermes_async.domain.budget import Budget
from tests.support.values import make_task

OPTIONS: dict[str, Any] = {
    "timeout": 7.0,
    "retry": {"initial": 2.0, "non_retryable": ("ValueError",)},
    "callbacks": {"on_complete": "told"},
    "webhook": {"url": "https://example.com/"},
    "idempotency": {"scope": "parent"},
    "limits": {"requests": 3},
    "settings": {"temperature": 0.5, "stop_sequences": ("a", "b")},
}


def newer(value: Any) -> Any:
    """The same, with a key at every depth that this version does not know."""
    if isinstance(value, dict):
        return {name: newer(each) for name, each in value.items()} | {"newer": {"deep": [1]}}
    return [newer(each) for each in value] if isinstance(value, list) else value


def test_options_that_this_version_does_not_know_are_passed_over_at_every_depth() -> None:
    birth = make_task(options=OPTIONS).birth
    budgets = tuple(
        Budget(task_id=id, limits=RunLimits(requests=2, cost_usd=0.5)) for id in ("t00-1", "t00-2")
    )
    birth = birth.model_copy(update={"budgets": budgets})
    options, rest = map(json.loads, encode_birth(birth).split("\n"))
    written = f"{json.dumps(newer(options))}\n{json.dumps(rest | {'budgets': newer(rest['budgets'])})}"
    assert written.count("newer") == 1 + len(OPTIONS) - 1 + 2 * 2
    assert decode_birth(written) == birth


@pytest.mark.parametrize("damage", [{"priority": 10}, {"retry": {"newer": 1, "factor": 0}}, {"id": None}])
def test_what_they_say_must_fit_all_the_same(damage: dict[str, Any]) -> None:
    options, rest = encode_birth(make_task().birth).split("\n")
    with pytest.raises(ValidationError):
        decode_birth(f"{json.dumps(json.loads(options) | damage)}\n{rest}")


def test_agents_yaml_is_read_as_strictly_as_ever() -> None:
    with pytest.raises(ValidationError):
        SubagentSpec.model_validate_json('{"id": "echo", "retry": {"newer": 1}}')
