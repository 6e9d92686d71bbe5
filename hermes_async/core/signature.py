"""An agent function's parameters and result as JSON: what a caller may send, and what a worker hands over."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

from pydantic import JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from hermes_async.domain.errors import InvalidInput, UserError, did_you_mean, nearest
from hermes_async.domain.misfit import HALF_CHARACTER, misfit_of

#: Bytes of JSON beyond which an input or a result is refused.
MAX_BYTES = 1_000_000
#: Bytes of JSON that one event may carry; more belongs into the result.
EVENT_BYTES = 64_000
#: Levels of nesting beyond which JSON is refused: readers of records stop at 200, the envelope included.
MAX_DEPTH = 100
#: How alike a name and a parameter must be for an object to be arguments, not a text that happens to be JSON.
MISSPELT = 0.8
#: How a parameter must not be given: the record keeps arguments by name.
_NAMELESS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)


def as_json(value: object, what: str, *, limit: int = MAX_BYTES) -> Any:
    """Return `value` as plain JSON values.

    Raises:
        InvalidInput: it has no JSON form (NaN, lone surrogates, a connection, ...), is too large or too deep.
    """
    try:
        text = to_json(value)
        plain = from_json(text, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as exc:
        raise InvalidInput(f"{what} cannot be written as JSON: {_lacking(exc)}") from exc
    if len(text) > limit:
        raise InvalidInput(
            f"{what} is {len(text):,} bytes of JSON, more than {limit:,}: pass a reference instead"
        )
    if _depth(plain) > MAX_DEPTH:
        raise InvalidInput(f"{what} is nested deeper than {MAX_DEPTH} levels: flatten it")
    return plain


def _lacking(error: Exception) -> str:
    # What pydantic writes can be read as JSON, but for these words.
    said = str(error)
    if said.startswith(("expected value", "invalid number")):
        return "NaN and Infinity have no form there"
    return HALF_CHARACTER if "surrogates not allowed" in said else said


def _depth(plain: JsonValue) -> int:
    if isinstance(plain, dict):
        return 1 + max(map(_depth, plain.values()), default=0)
    if isinstance(plain, list):
        return 1 + max(map(_depth, plain), default=0)
    return 0


def unbound(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of which some arguments may be bound already (`functools.partial`)."""
    return unbound(function.func) if isinstance(function, partial) else function


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, or of the kind of object that is called like one."""
    name: str = getattr(unbound(function), "__name__", type(function).__name__)
    return name


class Signature:
    """What a function takes after its context, and what it gives back."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._name = name_of(function)

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters after the context, by name."""
        _, *rest = self._resolved.parameters.values()
        return {p.name: p for p in rest if p.kind is not inspect.Parameter.VAR_KEYWORD}

    @cached_property
    def types(self) -> dict[str, TypeAdapter[Any]]:
        """The type of each parameter."""
        return {name: _adapter(parameter.annotation) for name, parameter in self.parameters.items()}

    @cached_property
    def result(self) -> TypeAdapter[Any]:
        """The result's type, to rebuild a returned value from its JSON."""
        return _adapter(self._resolved.return_annotation)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JsonValue]:
        """Return the arguments by parameter name as JSON values.

        Raises:
            InvalidInput: they do not fit; the message names the parameter.
        """
        if not isinstance(kwargs, Mapping):
            said = f"an input is the arguments by name, such as {{'topic': 'chips'}}, not {kwargs!r:.60}"
            raise InvalidInput(f"{self._name}: {said}")
        _, *given = self._bound(args, kwargs).items()
        flat: dict[str, Any] = {}
        for key, value in given:
            flat |= value if key not in self.parameters else {key: value}
        plain: dict[str, JsonValue] = as_json(flat, f"the input of {self._name}")
        self._converted(plain)
        return plain

    def bind_text(self, text: str) -> dict[str, JsonValue]:
        """Return the input that a line of text means: a JSON object of parameters, or the first parameter.

        Raises:
            InvalidInput: the text fits neither way, or is an object with a misspelt parameter.
        """
        named = _object(text)
        if named is not None and (not named or named.keys() & self.parameters.keys()):
            return self.bind((), named)
        try:
            as_text = self.bind((text,) if self.parameters else (), {})
        except InvalidInput as exc:
            if not named:
                raise
            key = next(iter(named))
            hint = did_you_mean(key, self.parameters) or f"; {self._takes}"
            raise InvalidInput(f"{self._name}: no argument {key!r}{hint}") from exc
        if named:
            self._refuse_misspelt(named)
        return as_text

    def _refuse_misspelt(self, named: Mapping[str, JsonValue]) -> None:
        """Refuse an object that is the arguments but for their spelling; any other may be meant as a text."""
        meant = {nearest(key, self.parameters) or key: value for key, value in named.items()}
        wrong = next((key for key in named if nearest(key, self.parameters, cutoff=MISSPELT)), None)
        if wrong is None or len(meant) < len(named) or not self._fits(meant):
            return
        as_text = json.dumps({next(iter(self.parameters)): "..."})
        raise InvalidInput(
            f"{self._name}: no argument {wrong!r}{did_you_mean(wrong, self.parameters)} "
            f"A text that is JSON is given as {as_text}"
        )

    def _fits(self, arguments: Mapping[str, JsonValue]) -> bool:
        try:
            self.bind((), arguments)
        except InvalidInput:
            return False
        return True

    def validate(self, plain: Mapping[str, JsonValue]) -> dict[str, Any]:
        """Return the arguments as the function's own types.

        Raises:
            InvalidInput: they do not fit, or a value has the wrong type.
        """
        self._bound((), plain)
        return self._converted(plain)

    def _converted(self, plain: Mapping[str, JsonValue]) -> dict[str, Any]:
        arguments: dict[str, Any] = dict(plain)
        for name, type_ in self.types.items():
            if name in plain:
                arguments[name] = self._validated(name, type_, plain[name])
        return arguments

    def requires(self, name: str) -> bool:
        """Return whether a parameter must be given."""
        return name in self._required

    @cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(name for name, each in self.parameters.items() if each.default is each.empty)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if not args and self._required <= kwargs.keys() <= self.parameters.keys():
            return {"": None, **kwargs}  # as most calls are; the first is the context
        try:
            return self._resolved.bind(None, *args, **kwargs).arguments
        except TypeError as exc:
            raise InvalidInput(f"{self._name}: {exc}; {self._takes}") from exc

    @property
    def _takes(self) -> str:
        return f"it takes ({', '.join(map(str, self.parameters.values()))})"

    def _validated(self, name: str, type_: TypeAdapter[Any], value: JsonValue) -> Any:
        try:
            return type_.validate_python(value)
        except ValidationError as exc:
            raise InvalidInput(f"{self._name}: {misfit_of(exc, name)}") from exc

    @cached_property
    def _resolved(self) -> inspect.Signature:
        try:
            signature = inspect.signature(self._function, eval_str=True)
        except Exception:  # annotations that only a type checker can see
            signature = inspect.signature(self._function)
            blank = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
            signature = inspect.Signature(blank)
        kinds = [p.kind for p in signature.parameters.values()]
        if not kinds or kinds[0] > inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise UserError(f"agent {self._name} must take a TaskContext as its first parameter")
        if any(kind in _NAMELESS for kind in kinds[1:]):
            raise UserError(f"agent {self._name} cannot take *args or `/`: name its parameters")
        return signature


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    unknown = annotation is inspect.Signature.empty
    try:
        return TypeAdapter(Any if unknown else annotation)
    except PydanticUserError:  # what pydantic cannot check is taken as it is
        return TypeAdapter(Any)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
