"""What an answer must look like: a type of Python, or JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import JsonValue, PydanticUserError, ValidationError

from hermes_async.core.json_type import JsonType
from hermes_async.core.signature import EVENT_BYTES, as_json
from hermes_async.domain.errors import InvalidInput, UserError
from hermes_async.domain.json_schema import misfit
from hermes_async.domain.misfit import misfit_of


class Shape:
    """The schema of a question: None is any JSON value, a mapping is JSON Schema, anything else is a type.

    Raises:
        UserError: it is a type that has no JSON Schema.
    """

    def __init__(self, schema: Any) -> None:
        self._type: JsonType[Any] | None = None
        self.schema: dict[str, JsonValue] | None = None
        if isinstance(schema, Mapping):
            self.schema = as_json(schema, "the schema of the question", limit=EVENT_BYTES)
        elif schema is not None:
            self._type, self.schema = _described(schema)

    def written(self, value: object) -> Any:
        """Return a value of the type as what an answer would be."""
        return value if self._type is None else self._type.written(value)

    def fit(self, value: JsonValue) -> Any:
        """Return an answer as a value of the type.

        Raises:
            InvalidInput: it does not fit.
        """
        if self._type is None:
            fault = misfit(self.schema, value)
            if fault:
                raise InvalidInput(fault)
            return value
        try:
            return self._type.read(value)
        except ValidationError as exc:
            raise InvalidInput(misfit_of(exc)) from exc


def _described(schema: Any) -> tuple[JsonType[Any], dict[str, Any]]:
    type_ = JsonType[Any](schema)
    with suppress(PydanticUserError):  # a type that only Python has
        if type_.is_known:
            return type_, type_.adapter.json_schema()
    raise UserError(f"the schema of a question is a type with a JSON form, or JSON Schema, not {schema!r}")
