"""Whether a function can be an agent's, said before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import GenericAlias, UnionType
from typing import Any, Union, get_args, get_origin

from hermes_async.core.context import TaskContext
from hermes_async.core.signature import check_parameters, meaning, unbound
from hermes_async.domain.errors import UserError


def checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of an agent, which can run tasks.

    Raises:
        UserError: it cannot; the message says what to write instead.
    """
    inner = unbound(function)
    if inspect.isclass(inner) or not hasattr(inner, "__name__"):
        kind = "class" if inspect.isclass(inner) else f"{type(inner).__name__} object"
        raise UserError(f"agent {name!r} is a {kind}, not a function; write a `def` that calls it")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        cure = "`return` one value, and tell of parts with `ctx.partial`"
        raise UserError(f"agent {name!r} must not `yield`: {cure}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # only C knows
        raise UserError(f"agent {name!r} does not tell what it takes; write a `def` that calls it") from None
    check_parameters(name, signature)
    first, *others = [meaning(function, each.annotation) for each in signature.parameters.values()]
    is_unbound = first is inspect.Parameter.empty and any(map(_is_context, others))
    if is_unbound or not _takes_context(first):
        given = next(iter(signature.parameters))
        raise UserError(f"agent {name!r} must take a TaskContext as its first parameter; {given!r} is none")
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


def _is_context(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, TaskContext)


def _takes_context(annotation: Any) -> bool:
    """Tell whether a context may be among what is annotated so; whatever is no plain type may mean one."""
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_takes_context, get_args(annotation)))
    kind = get_origin(annotation) if isinstance(annotation, GenericAlias) else annotation
    if kind in (Any, inspect.Parameter.empty) or not isinstance(kind, type):
        return True
    is_protocol = getattr(kind, "_is_protocol", False)
    return is_protocol or issubclass(kind, TaskContext) or issubclass(TaskContext, kind)
