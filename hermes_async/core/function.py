"""Whether a function can be an agent's, said before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import GenericAlias, UnionType
from typing import Any, Union, get_args, get_origin

from hermes_async.core.context import TaskContext
from hermes_async.core.signature import meaning, unbound
from hermes_async.domain.errors import UserError


def checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of an agent, which can run tasks.

    Raises:
        UserError: it cannot; the message says what to write instead.
    """
    if not hasattr(unbound(function), "__name__"):
        kind = type(function).__name__
        raise UserError(f"agent {name!r} is a {kind} object, not a function; write a `def` that calls it")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        cure = "`return` one value, and tell of parts with `ctx.partial`"
        raise UserError(f"agent {name!r} must not `yield`: {cure}")
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is not None and not _takes_context(meaning(function, first.annotation)):
        raise UserError(
            f"agent {name!r} must take a TaskContext as its first parameter; {first.name!r} is none"
        )
    return function


def is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Tell whether two functions are one, which has two objects if its module is also the program."""
    code = _code(one)
    return one is other or (code is not None and code == _code(other))


def _code(function: Callable[..., Any]) -> tuple[str, int] | None:
    code = getattr(inspect.unwrap(unbound(function)), "__code__", None)
    return code and (code.co_filename, code.co_firstlineno)


def place_of(function: Callable[..., Any]) -> str:
    """Return where a function is, as `run` in agents.yaml says it."""
    inner = unbound(function)
    return f"{inner.__module__}:{inner.__qualname__}"


def _takes_context(annotation: Any) -> bool:
    """Tell whether a context may be among what is annotated so; whatever is no plain type may mean one."""
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_takes_context, get_args(annotation)))
    kind = get_origin(annotation) if isinstance(annotation, GenericAlias) else annotation
    if kind in (Any, inspect.Parameter.empty) or not isinstance(kind, type):
        return True
    is_protocol = getattr(kind, "_is_protocol", False)
    return is_protocol or issubclass(kind, TaskContext) or issubclass(TaskContext, kind)
