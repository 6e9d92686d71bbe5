"""A small check of values against JSON Schema: what most schemas say, without a library.

Checked are `type`, `enum`, `const`, `anyOf`, `oneOf` (as `anyOf`), `allOf`, `$ref` within the schema; of
objects `properties`, `required`, `additionalProperties`; of arrays `items`, `prefixItems`, `minItems`,
`maxItems`; of texts `minLength`, `maxLength`; of numbers `minimum`, `maximum`, `exclusiveMinimum`,
`exclusiveMaximum`. Any other keyword is passed over, `pattern` among them: some patterns take for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Steps of a check; a `$ref` may lead back to where it is.
MOST_STEPS = 10_000

_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("is less than {}", lambda value, bound: value >= bound),
    "maximum": ("is more than {}", lambda value, bound: value <= bound),
    "exclusiveMinimum": ("is not more than {}", lambda value, bound: value > bound),
    "exclusiveMaximum": ("is not less than {}", lambda value, bound: value < bound),
}
_LENGTHS: dict[str, tuple[type, str, Callable[[Any, Any], bool]]] = {
    "minLength": (str, "is shorter than {} characters", lambda value, bound: len(value) >= bound),
    "maxLength": (str, "is longer than {} characters", lambda value, bound: len(value) <= bound),
    "minItems": (list, "has fewer than {} items", lambda value, bound: len(value) >= bound),
    "maxItems": (list, "has more than {} items", lambda value, bound: len(value) <= bound),
}


def misfit(schema: Mapping[str, Any] | None, value: Any) -> str | None:
    """Return in a few words why a JSON value does not fit a schema, or None.

    A schema that makes no sense, or leads in circles, allows everything.
    """
    if schema is None:
        return None
    try:
        return next(_Check(schema).faults(schema, value, "the answer"), None)
    except (TypeError, AttributeError, KeyError, ValueError, RecursionError):
        return None


class _Check:
    """One value against one schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MOST_STEPS

    def faults(self, schema: Any, value: Any, where: str) -> Iterator[str]:
        """Yield what is wrong with a value within the value, which is called `where`."""
        self._left -= 1
        if self._left < 0:
            raise RecursionError
        if schema is False:
            yield f"{where} is not allowed"
        if not isinstance(schema, Mapping):
            return
        yield from _plain_faults(schema, value, where)
        yield from self._combined(schema, value, where)
        if isinstance(value, dict):
            yield from self._object(schema, value, where)
        if isinstance(value, list):
            yield from self._array(schema, value, where)

    def _combined(self, schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
        if "$ref" in schema:
            yield from self.faults(self._target(schema["$ref"]), value, where)
        for each in schema.get("allOf", ()):
            yield from self.faults(each, value, where)
        for word in ("anyOf", "oneOf"):
            found = [next(self.faults(each, value, where), None) for each in schema.get(word, ())]
            if found and None not in found:
                yield " and ".join(dict.fromkeys(filter(None, found)))

    def _object(self, schema: Mapping[str, Any], value: dict[str, Any], where: str) -> Iterator[str]:
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where} has no {name!r}"
        for name, each in value.items():
            inner = known.get(name, schema.get("additionalProperties", True))
            yield from self.faults(inner, each, f"{name!r} of {where}")

    def _array(self, schema: Mapping[str, Any], value: list[Any], where: str) -> Iterator[str]:
        first = schema.get("prefixItems", ())
        for number, each in enumerate(value):
            inner = first[number] if number < len(first) else schema.get("items", True)
            yield from self.faults(inner, each, f"item {number + 1} of {where}")

    def _target(self, ref: Any) -> Any:
        """Return what a reference within the schema names; one that leads elsewhere allows everything."""
        found: Any = self._root
        first, *steps = str(ref).split("/")
        if first != "#":
            return True
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name, True) if isinstance(found, Mapping) else True
        return found


def _plain_faults(schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    types = schema.get("type", [])
    wanted = [types] if isinstance(types, str) else types
    if wanted and not any(_TYPES.get(name, _anything)(value) for name in wanted):
        yield f"{where} is not of type {' or '.join(map(str, wanted))}"
        return
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        yield f"{where} is none of {', '.join(map(repr, schema['enum']))}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{where} is not {schema['const']!r}"
    for word, (told, holds) in _BOUNDS.items():
        if word in schema and _is_number(value) and not holds(value, schema[word]):
            yield f"{where} {told.format(schema[word])}"
    for word, (kind, told, holds) in _LENGTHS.items():
        if word in schema and isinstance(value, kind) and not holds(value, schema[word]):
            yield f"{where} {told.format(schema[word])}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(value: Any, other: Any) -> bool:
    """Tell 1 from True, which Python does not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _anything(value: Any) -> bool:
    return True
