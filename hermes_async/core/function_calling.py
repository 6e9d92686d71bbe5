"""Methods as a model calls them: a name, a JSON Schema, and arguments that came as JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.misfit import misfit_of

#: What a framework is given.
Function: TypeAlias = Callable[..., Awaitable[Any]]


def _as_text(value: Any) -> Any:
    """Return what a model wrote as text: some write an object where JSON in a text is asked for."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


#: A text; whatever else a model gives is taken as JSON.
Text = Annotated[str, BeforeValidator(_as_text)]


@dataclass(frozen=True, eq=False)
class Face:
    """What a model sees of a method: making one is slow, so that one serves for all objects of a class."""

    name: str
    description: str
    signature: inspect.Signature

    @classmethod
    def of(cls, method: Function, **annotations: Any) -> Face:
        """Return that of a method of a class; what is keyword-only is not for models.

        Args:
            method: with a docstring that a model reads.
            annotations: other types of its parameters.
        """
        hints = get_type_hints(method, include_extras=True) | annotations
        _, *parameters = inspect.signature(method).parameters.values()
        seen = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
        typed = [each.replace(annotation=hints[each.name]) for each in seen]
        signature = inspect.Signature(typed, return_annotation=dict[str, Any])
        return cls(method.__name__, inspect.getdoc(method) or "", signature)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the parameters, strict: every one is given, or null."""
        return deepcopy(self._schema)  # some frameworks write into what they are given

    def arguments(self, given: str | Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what a model gave, an object or the text of one, as arguments.

        Raises:
            InvalidInput: it does not fit.
        """
        try:
            return dict(self._parameters.model_validate(self._object(given or {})))
        except ValidationError as exc:
            takes = ", ".join(self.signature.parameters) or "no arguments"
            raise InvalidInput(f"{misfit_of(exc, self.name)}; {self.name} takes {takes}") from exc

    def on(self, method: Function) -> Function:
        """Return a plain function that calls a bound method, and looks as frameworks want to see it."""

        async def function(*args: Any, **kwargs: Any) -> Any:
            return await method(*args, **kwargs)

        function.__name__ = function.__qualname__ = self.name
        function.__doc__ = self.description
        function.__annotations__ = {
            **{each.name: each.annotation for each in self.signature.parameters.values()},
            "return": self.signature.return_annotation,
        }
        vars(function)["__signature__"] = self.signature
        return function

    def _object(self, given: str | Mapping[str, Any]) -> dict[str, Any]:
        try:
            found = json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError) as exc:
            raise InvalidInput(f"the arguments of {self.name} are not JSON: {exc}") from exc
        if not isinstance(found, Mapping):
            raise InvalidInput(f"the arguments of {self.name} are not a JSON object")
        return dict(found)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = _plain(self._parameters.model_json_schema())
        return {**schema, "required": [*schema["properties"]]}

    @cached_property
    def _parameters(self) -> type[BaseModel]:
        fields: dict[str, Any] = {
            each.name: (each.annotation, ... if each.default is each.empty else each.default)
            for each in self.signature.parameters.values()
        }
        return create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)


def _plain(schema: Any) -> Any:
    """Return a schema without titles and defaults, which strict function calling refuses."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _plain(value) for key, value in schema.items() if key not in ("title", "default")}
    named = schema.get("properties", {})
    return kept | {"properties": {name: _plain(each) for name, each in named.items()}} if named else kept
