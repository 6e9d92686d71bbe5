"""The options of a subagent that stand in Python, checked: one sentence tells what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.errors import UserError, did_you_mean
from hermes_async.domain.spec import Must
from hermes_async.domain.task import Lane

_NAME: Final = next(each.be for each in SubagentSpec.model_fields["id"].metadata if isinstance(each, Must))
#: The names of all options.
OPTIONS: Final = [field.alias or name for name, field in SubagentSpec.model_fields.items()]


def spec_of(id: str, agent: str, options: Mapping[str, Any]) -> SubagentSpec:
    """Return the options of a subagent.

    Args:
        id: what its parents call it.
        agent: the agent that does the work.
        options: what it may say in agents.yaml, by name.

    Raises:
        UserError: an option is not known, or has no such value.
    """
    try:
        return SubagentSpec.model_validate({"id": id, "agent": agent, **_frozen(options)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("id",):
            raise UserError(f"an agent cannot be called {id!r}: `name` must be {_NAME}") from None
        raise UserError(f"subagent {id!r} {_told(first)}") from None


def lane_of(id: str, pool: str | None) -> Lane | None:
    """Return the lane that a pool means; None: that of the function's kind.

    Raises:
        UserError: there is no such pool.
    """
    if pool is None:
        return None
    if pool not in list(Lane):
        raise UserError(f"subagent {id!r}: pool must be {' or '.join(Lane)}, not {pool!r}")
    return Lane(pool)


def _frozen(value: Any) -> Any:
    """Return a value with a tuple for each list: options cannot be changed."""
    if isinstance(value, Mapping):
        return {key: _frozen(each) for key, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _told(detail: ErrorDetails) -> str:
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"has no option {name!r}{did_you_mean(name, OPTIONS)}"
    return f"cannot have this {name}: {detail['msg'].removeprefix('Value error, ')}"
