"""Plain async functions as a model calls them: a name, a JSON Schema, and arguments that came as JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from hermes_async.domain.errors import InvalidInput

#: What a framework is given.
Function: TypeAlias = Callable[..., Awaitable[Any]]


def _as_text(value: Any) -> Any:
    """Return what a model wrote as text: some write an object where JSON in a text is asked for."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


#: A text; whatever else a model gives is taken as JSON.
Text = Annotated[str, BeforeValidator(_as_text)]


def function_of(method: Function, **annotations: Any) -> Function:
    """Return a plain function that calls a bound method and gives a dict, as frameworks want to look at it.

    Args:
        method: its name, signature and docstring are what a model reads; keyword-only parameters are hidden.
        annotations: other types of its parameters.
    """

    async def function(*args: Any, **kwargs: Any) -> Any:
        return await method(*args, **kwargs)

    hints = get_type_hints(method, include_extras=True) | annotations | {"return": dict[str, Any]}
    signature = inspect.signature(method)
    seen = [each for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY]
    typed = [each.replace(annotation=hints[each.name]) for each in seen]
    function.__name__ = function.__qualname__ = method.__name__
    function.__doc__ = inspect.getdoc(method)
    function.__annotations__ = {each.name: hints[each.name] for each in seen} | {"return": hints["return"]}
    vars(function)["__signature__"] = inspect.Signature(typed, return_annotation=hints["return"])
    return function


def schema_of(function: Function) -> dict[str, Any]:
    """Return a function as OpenAI's chat completions want it, strict: every parameter is given, or null."""
    parameters = _plain(_parameters(function).model_json_schema())
    parameters["required"] = [*parameters["properties"]]
    said = {
        "name": function.__name__,
        "description": inspect.getdoc(function),
        "parameters": parameters,
        "strict": True,
    }
    return {"type": "function", "function": said}


def arguments(function: Function, given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a model gave, an object or the text of one, as arguments of the function.

    Raises:
        InvalidInput: it does not fit.
    """
    try:
        return dict(_parameters(function).model_validate(_object(function, given or {})))
    except ValidationError as exc:
        problem = exc.errors()[0]
        takes = ", ".join(inspect.signature(function).parameters) or "no arguments"
        place = ".".join(map(str, (function.__name__, *problem["loc"])))
        raise InvalidInput(f"{place}: {problem['msg']}; {function.__name__} takes {takes}") from exc


def _object(function: Function, given: str | Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"the arguments of {function.__name__} are not JSON: {exc}") from exc
    if not isinstance(found, Mapping):
        raise InvalidInput(f"the arguments of {function.__name__} are not a JSON object")
    return dict(found)


def _parameters(function: Function) -> type[BaseModel]:
    fields: dict[str, Any] = {
        each.name: (each.annotation, ... if each.default is each.empty else each.default)
        for each in inspect.signature(function).parameters.values()
    }
    return create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def _plain(schema: Any) -> Any:
    """Return a schema without titles and defaults, which strict function calling refuses."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _plain(value) for key, value in schema.items() if key not in ("title", "default")}
    named = schema.get("properties", {})
    return kept | {"properties": {name: _plain(each) for name, each in named.items()}} if named else kept
