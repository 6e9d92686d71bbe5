"""What public methods are given, checked by their annotations: one sentence tells what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cached_property, wraps
from itertools import chain, repeat
from typing import Annotated, Any, Final, ParamSpec, TypeVar, get_origin, get_type_hints

from pydantic import Field, Strict, TypeAdapter, ValidationError

from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.misfit import misfit_of
from hermes_async.domain.task import TaskStatus

P = ParamSpec("P")
R = TypeVar("R")

#: What a script of Redis can count to.
_MOST: Final = 2**53

# Only of a text with a bound does pydantic look whether it has a form in UTF-8.
Text = Annotated[str, Strict(), Field(min_length=0)]
Name = Annotated[str | None, Strict(), Field(min_length=0)]
Status = Annotated[TaskStatus | None, Field()]
Seq = Annotated[int, Strict(), Field(ge=0, le=_MOST)]
Count = Annotated[int, Strict(), Field(ge=1, le=_MOST)]
Seconds = Annotated[float, Strict(), Field(ge=0)]
Patience = Annotated[float | None, Strict(), Field(ge=0)]
Percent = Annotated[float | None, Field()]
Flag = Annotated[bool, Strict()]
Function = Annotated[Callable[..., Any], Field()]


def strict(method: Callable[P, R]) -> Callable[P, R]:
    """Have a method refuse, when it is called, what those of its parameters do not take that are `Annotated`.

    Raises:
        InvalidInput: the message names method and parameter.
    """
    parameters = _Parameters(method)

    @wraps(method)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        parameters.check(chain(zip(parameters.positional, args, strict=False), kwargs.items()))
        return method(*args, **kwargs)

    return checking


class _Parameters:
    """Those of a method; annotations are looked up at the first call, for most methods are never called."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        named = inspect.signature(method).parameters.values()
        self._names = [each.name for each in named if each.kind is not each.KEYWORD_ONLY]
        self._repeated = [each.name for each in named if each.kind is each.VAR_POSITIONAL]

    @property
    def positional(self) -> Iterable[str]:
        """The names of arguments that are given by place, in their order."""
        return chain(self._names, repeat(self._repeated[0])) if self._repeated else self._names

    @cached_property
    def _types(self) -> dict[str, TypeAdapter[Any]]:
        hints = get_type_hints(self._method, include_extras=True)
        return {name: TypeAdapter(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}

    def check(self, arguments: Iterable[tuple[str, object]]) -> None:
        """Raise InvalidInput for the first argument that does not fit."""
        for name, value in arguments:
            if name in self._types:
                try:
                    self._types[name].validate_python(value)
                except ValidationError as exc:
                    called = self._method.__qualname__.removesuffix(".__init__")
                    raise InvalidInput(f"{called}: {misfit_of(exc, name)}") from None
