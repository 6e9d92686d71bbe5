"""An agent function's parameters and result as JSON: what a caller may send, and what a worker hands over."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Unpack, get_origin

from pydantic import JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from hermes_async.core.json_type import JsonType
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
    inner = unbound(function)
    name: str = getattr(inner, "__name__", type(inner).__name__)
    return name


def meaning(function: Callable[..., Any], annotation: Any) -> Any:
    """Return what an annotation stands for; Any, if nobody but a type checker can tell."""
    if not isinstance(annotation, str):
        return annotation
    inner = inspect.unwrap(unbound(function))
    try:
        return eval(annotation, inner.__globals__, _enclosed(inner))
    except Exception:
        return Any


def _enclosed(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what a function has from the function that it is in."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells}


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
    def types(self) -> dict[str, JsonType[Any]]:
        """The type of each parameter."""
        return {name: _type(parameter.annotation) for name, parameter in self.parameters.items()}

    @cached_property
    def result(self) -> JsonType[Any]:
        """The result's type, to rebuild a returned value from its JSON."""
        return _type(self._resolved.return_annotation)

    @cached_property
    def _further(self) -> JsonType[Any]:
        """The type of what `**kwargs` takes together."""
        *_, last = self._resolved.parameters.values()
        if last.kind is not last.VAR_KEYWORD or last.annotation is last.empty:
            return JsonType(Any)
        is_whole = get_origin(last.annotation) is Unpack
        return JsonType(last.annotation.__args__[0] if is_whole else dict[str, last.annotation])  # type: ignore[name-defined]

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JsonValue]:
        """Return the arguments of a call by parameter name as JSON values.

        Raises:
            InvalidInput: they do not fit; the message names the parameter.
        """
        given = self._given(args, kwargs)
        named = {name: self.types[name].written(given.pop(name)) for name in self.parameters if name in given}
        return self._fitting(named | given | (self._further.written(given) if given else {}))

    def bind_json(self, input: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return arguments that came as JSON, by parameter name.

        Raises:
            InvalidInput: they do not fit; the message names the parameter.
        """
        return self._fitting(self._given((), input))

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(kwargs, Mapping):
            said = f"an input is the arguments by name, such as {{'topic': 'chips'}}, not {kwargs!r:.60}"
            raise InvalidInput(f"{self._name}: {said}")
        _, *given = self._bound(args, kwargs).items()
        flat: dict[str, Any] = {}
        for key, value in given:
            flat |= value if key not in self.parameters else {key: value}
        return flat

    def _fitting(self, given: Mapping[str, Any]) -> dict[str, JsonValue]:
        plain: dict[str, JsonValue] = as_json(given, f"the input of {self._name}")
        self._converted(plain)
        return plain

    def bind_text(self, text: str) -> dict[str, JsonValue]:
        """Return the input that a line of text means: a JSON object of parameters, or the first parameter.

        Raises:
            InvalidInput: the text fits neither way, or is an object with a misspelt parameter.
        """
        named = _object(text)
        if named is not None and (not named or named.keys() & self.parameters.keys()):
            return self.bind_json(named)
        try:
            as_text = self.bind_json(dict.fromkeys([*self.parameters][:1], text))
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
            self.bind_json(arguments)
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
        further = dict(plain)
        named = {
            name: self._read(type_, further.pop(name), name)
            for name, type_ in self.types.items()
            if name in plain
        }
        return named if self._further.is_any and not further else named | self._furthered(further)

    def _furthered(self, plain: dict[str, JsonValue]) -> dict[str, Any]:
        found: dict[str, Any] = self._read(self._further, plain)
        for name in plain.keys() - found.keys():
            raise InvalidInput(f"{self._name}: no argument {name!r}; {self._takes}")
        return found

    def returned(self, value: object, agent: str | None) -> JsonValue:
        """Return a result as JSON values from which its type can be rebuilt.

        Raises:
            InvalidInput: it is none of the type, nor means one; the message names the agent and the place.
        """
        if inspect.iscoroutine(value):
            value.close()
            raise InvalidInput(f"{agent} has returned a coroutine: `return await` it, in an `async def`")

        def fitting(*, to_read: bool) -> JsonValue:
            plain: JsonValue = as_json(self.result.written(value, to_read=to_read), f"the result of {agent}")
            self.result.read(plain)
            return plain

        with suppress(ValidationError):  # what is only shown may be what does not fit
            return fitting(to_read=False)
        try:
            return fitting(to_read=True)
        except ValidationError as exc:
            raise result_misfit(agent, exc) from exc

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

    def _read(self, type_: JsonType[Any], value: JsonValue, *name: str) -> Any:
        try:
            return type_.read(value)
        except ValidationError as exc:
            raise InvalidInput(f"{self._name}: {misfit_of(exc, *name)}") from exc

    @cached_property
    def _resolved(self) -> inspect.Signature:
        signature = inspect.signature(self._function)
        meant = partial(meaning, self._function)
        said = [p.replace(annotation=meant(p.annotation)) for p in signature.parameters.values()]
        signature = inspect.Signature(said, return_annotation=meant(signature.return_annotation))
        check_parameters(self._name, signature)
        return signature


def check_parameters(name: str, signature: inspect.Signature) -> None:
    """Look whether what a function takes are a context and parameters with names.

    Raises:
        UserError: they are not; the message says what to write instead.
    """
    kinds = [p.kind for p in signature.parameters.values()]
    if not kinds or kinds[0] > inspect.Parameter.POSITIONAL_OR_KEYWORD:
        is_wrapper = kinds[:1] == [inspect.Parameter.VAR_POSITIONAL]
        cure = "; if it is wrapped, `functools.wraps` shows it" if is_wrapper else ""
        raise UserError(f"agent {name!r} must take a TaskContext as its first parameter{cure}")
    if any(kind in _NAMELESS for kind in kinds[1:]):
        raise UserError(f"agent {name!r} cannot take *args or `/`: name its parameters")


def result_misfit(agent: str | None, error: ValidationError) -> InvalidInput:
    """Return the error of a result that is not of the type that its function says."""
    return InvalidInput(f"the result of {agent} does not fit: {misfit_of(error)}")


def _type(annotation: Any) -> JsonType[Any]:
    return JsonType(Any if annotation is inspect.Signature.empty else annotation)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
