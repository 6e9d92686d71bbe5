"""A type of Python as JSON: what is written of a value is read back as an equal one."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import JsonValue, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

T = TypeVar("T")

#: Kinds of schemas whose values need no writing.
_JSON = ("str", "int", "bool")
#: Of what pydantic cannot check, which is taken as it is; the latter are those of a text or a name.
_UNKNOWN = (PydanticUserError, NameError, SyntaxError, ValueError, IndexError)
#: What is raised by a value that is none of a type, also by serializers of the type's own.
_UNWRITABLE = (PydanticSerializationError, ValueError, TypeError, AttributeError, RecursionError)


class JsonType(Generic[T]):
    """A type, or Any where pydantic knows none of that kind."""

    def __init__(self, annotation: Any) -> None:
        self.is_known = True
        try:
            self.adapter: TypeAdapter[T] = TypeAdapter(annotation)
            self.is_any = self.adapter.core_schema["type"] == "any"
        except _UNKNOWN:
            self.adapter, self.is_any, self.is_known = TypeAdapter(Any), True, False
        schema = self.adapter.core_schema
        #: Its values are JSON.
        self._is_json = self.is_any or (schema["type"] in _JSON and "serialization" not in schema)
        #: What writes one alias and reads another is written by the names of its fields.
        self._by_alias = _reads_what_it_writes(schema)

    def written(self, value: object, *, to_read: bool = True) -> Any:
        """Return a value as the type writes it, or as it is when it is none of the type's own.

        Args:
            value: of the type; or what means one, such as a dict.
            to_read: leave out what is only shown, such as computed fields.
        """
        if self._is_json:
            return value
        try:
            return self.adapter.dump_python(
                value,  # type: ignore[arg-type]  # whether it is one shows here
                mode="json",
                by_alias=self._by_alias,
                round_trip=to_read,
                warnings="error",
            )
        except _UNWRITABLE:
            return value if self._by_alias else _by_names(value)

    def read(self, plain: JsonValue) -> T:
        """Return what JSON means.

        Raises:
            ValidationError: it does not fit.
        """
        if self.is_any:
            return plain  # type: ignore[return-value]
        by_name = None if self._by_alias else True
        return self.adapter.validate_json(to_json(plain), by_alias=by_name, by_name=by_name)


def _by_names(value: object) -> Any:
    """Return a value as it writes itself, or what has no JSON form as it is."""
    try:
        return to_jsonable_python(value, by_alias=False)
    except _UNWRITABLE:
        return value


def _reads_what_it_writes(schema: Any) -> bool:
    """Tell whether every field of a type, and of those in it, has one alias for both ways."""
    if isinstance(schema, list | tuple):
        return all(map(_reads_what_it_writes, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("validation_alias") != schema.get("serialization_alias"):
        return False
    if schema.get("validate_by_alias") is False:
        return False
    return all(_reads_what_it_writes(each) for key, each in schema.items() if key != "metadata")
