"""A tool as a value: a function that a model may call, what it reads of it, and how far a call may go."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, NotRequired, overload

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict

from hermes_async.core.context import TaskContext
from hermes_async.core.docstring import Docstring
from hermes_async.domain.errors import InvalidInput, UserError
from hermes_async.domain.misfit import misfit_of

#: Seconds of a call, unless the tool says otherwise.
TIMEOUT: Final = 30.0
#: Characters of a result; the rest is cut.
MAX_CHARS: Final = 20_000
#: What models take as the name of a function.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Tool:
    """A function that a model may call.

    Args:
        name: what the model calls it.
        function: a `def` or an `async def`; it may take a `TaskContext` as its first parameter.
        timeout: seconds of one call.
        max_chars: characters of a result; the rest is cut.

    Raises:
        UserError: no model can call it; the message says why.
    """

    name: str
    function: Callable[..., Any]
    timeout: float = TIMEOUT
    max_chars: int = MAX_CHARS

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"tool {self.name!r}: models take names of letters, digits, `_` and `-`, at most 64"
            )
        if not callable(self.function):
            raise UserError(f"tool {self.name!r} is not a function")
        if inspect.isasyncgenfunction(self.function):
            raise UserError(f"tool {self.name!r} yields, but a model reads one result: return a list")
        if not self.timeout > 0 or not self.max_chars > 0:
            raise UserError(f"tool {self.name!r}: timeout and max_chars must be greater than 0")

    @property
    def is_async(self) -> bool:
        """True for `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def takes_context(self) -> bool:
        """True when the first parameter is a `TaskContext`, of which the model hears nothing."""
        return self._parameters[0]

    @cached_property
    def description(self) -> str:
        """What the model reads of the tool: the docstring, without the sections on parameters and results."""
        return self._docstring.text

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments; whoever asks may change it."""
        return deepcopy(self._schema)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        found = self._arguments.json_schema()
        found.pop("title", None)
        for each in found["properties"].values():
            each.pop("title", None)
        return found

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments as the function's own types.

        Raises:
            InvalidInput: they do not fit; the message says what is wrong with the first that does not.
        """
        try:
            found: dict[str, Any] = self._arguments.validate_json(to_json(arguments))
        except ValidationError as error:
            raise InvalidInput(f"{self.name}: {misfit_of(error)}; it takes {self._takes}") from None
        except Exception as error:  # a validator of the tool's own has stumbled over them
            raise InvalidInput(f"{self.name}: {type(error).__name__}; it takes {self._takes}") from None
        return found

    @property
    def _takes(self) -> str:
        return f"({', '.join(map(str, self._parameters[1]))})"

    @cached_property
    def _docstring(self) -> Docstring:
        return Docstring.of(self.function)

    @cached_property
    def _parameters(self) -> tuple[bool, list[inspect.Parameter]]:
        """Whether a context comes first, and what comes after it."""
        found = _parameters(self.function)
        context = bool(found) and _is_context(found[0].annotation)
        rest = found[1:] if context else found
        for each in rest:
            if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                raise UserError(f"tool {self.name!r} cannot take *args, **kwargs or `/`: name its parameters")
        return context, rest

    @cached_property
    def _arguments(self) -> TypeAdapter[Any]:
        said = self._docstring.parameters
        fields = {each.name: _field(each, said.get(each.name)) for each in self._parameters[1]}
        shape = with_config(ConfigDict(extra="forbid"))(TypedDict(self.name, fields))  # type: ignore[operator]
        try:
            return TypeAdapter(shape)
        except PydanticUserError as error:
            why = error.message.partition(". ")[0]
            sentence = f"tool {self.name!r}: a parameter has a type without a JSON form: {why}"
            raise UserError(sentence) from None


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, timeout: float = TIMEOUT, max_chars: int = MAX_CHARS
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float = TIMEOUT,
    max_chars: int = MAX_CHARS,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, when its name, timeout or size are not to be the usual ones.

    Args:
        function: the `def` or `async def`, when the decorator is used bare.
        name: what the model calls it; the function's own name by default.
        timeout: seconds of one call.
        max_chars: characters of a result; the rest is cut.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        return Tool(name or function.__name__, function, timeout, max_chars)

    return decorate if function is None else decorate(function)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception:  # annotations that only a type checker can see
        found = inspect.signature(function).parameters.values()
        return [each if _is_context(each.annotation) else each.replace(annotation=Any) for each in found]


def _is_context(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == TaskContext.__name__
    return isinstance(annotation, type) and issubclass(annotation, TaskContext)


def _field(parameter: inspect.Parameter, said: str | None) -> Any:
    type_ = Any if parameter.annotation is parameter.empty else parameter.annotation
    if parameter.default is parameter.empty:
        return Annotated[type_, Field(description=said)]
    extra = {"default": parameter.default} if _is_plain(parameter.default) else None
    return NotRequired[Annotated[type_, Field(description=said, json_schema_extra=extra)]]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
