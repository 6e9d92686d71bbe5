"""A subagent as a value: a function, and how it is to be run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from hermes_async.core.context import TaskContext
from hermes_async.core.signature import Signature
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.task import Lane

P = ParamSpec("P")
R = TypeVar("R")

AgentFunction = Callable[Concatenate[TaskContext, P], R]


@dataclass(frozen=True)
class Subagent(Generic[P, R]):
    """An agent function with its options; making one has no side effect."""

    name: str
    function: Callable[..., Any]
    spec: SubagentSpec
    pool: Lane | None = None

    @cached_property
    def signature(self) -> Signature:
        """The function's parameters and result."""
        return Signature(self.function)

    @property
    def description(self) -> str:
        """What a parent model reads before it delegates."""
        return inspect.getdoc(self.function) or ""

    @property
    def is_async(self) -> bool:
        """True for `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def lane(self) -> Lane:
        """Where it runs: `async def` in the async lane, `def` in the process lane, unless `pool` says so."""
        return self.pool or (Lane.ASYNC if self.is_async else Lane.PROCESS)

    def options(self, **changes: Any) -> Subagent[P, R]:
        """Return the same subagent with other options, for example `research.options(timeout=10)`."""
        said = SubagentSpec.model_validate({"id": self.spec.id, "agent": self.spec.agent, **changes})
        return replace(self, spec=said.over(self.spec))


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
        name = self.name or function.__name__
        spec = SubagentSpec.model_validate({"id": name, "agent": name, **self.options})
        return Subagent(name, function, spec, Lane(self.pool) if self.pool else None)
