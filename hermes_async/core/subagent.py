"""The decorator that makes a subagent of a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from hermes_async.core.agent import Subagent
from hermes_async.core.context import TaskContext
from hermes_async.core.function import checked
from hermes_async.core.options import lane_of, spec_of
from hermes_async.core.signature import name_of

__all__ = ["Subagent", "subagent"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def subagent(function: Callable[Concatenate[TaskContext, P], Awaitable[R]], /) -> Subagent[P, R]: ...
@overload
def subagent(function: Callable[Concatenate[TaskContext, P], R], /) -> Subagent[P, R]: ...
@overload
def subagent(*, name: str | None = None, pool: str | None = None, **options: Any) -> _Decorator: ...
def subagent(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    pool: str | None = None,
    **options: Any,
) -> Subagent[..., Any] | _Decorator:
    """Make a subagent of a function whose first parameter is a `TaskContext`.

    Args:
        function: the `def` or `async def`, when the decorator is used bare.
        name: the agent's name; the function's own by default.
        pool: `async` or `process`, to override the lane that the function's kind implies.
        options: what a subagent may say in agents.yaml, for example `timeout=120, retry_limit=2`.

    Raises:
        UserError: an option is not known, or has no such value; or the function cannot run tasks.
    """
    decorate = _Decorator(name, pool, options)
    return decorate if function is None else decorate(function)


@dataclass(frozen=True)
class _Decorator:
    name: str | None
    pool: str | None
    options: dict[str, Any]

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Awaitable[R]]) -> Subagent[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R]) -> Subagent[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Subagent[..., Any]:
        name = self.name or name_of(function)
        spec = spec_of(name, name, self.options)
        return Subagent(name, checked(name, function), spec, lane_of(name, self.pool))
