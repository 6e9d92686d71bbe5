"""The subagents of a parent, in the words that a model reads before it delegates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import PydanticUserError

from hermes_async.core.subagent import Subagent

#: Characters of what a subagent says of itself.
DESCRIPTION = 600
#: Levels of a type that are written out.
DEPTH = 4


def catalogue(subagents: Iterable[Subagent[..., Any]]) -> str:
    """Return a line for each subagent: its name, what it does, and what input it takes."""
    return "\n".join(map(_line, subagents))


def _line(subagent: Subagent[..., Any]) -> str:
    said = " ".join(subagent.description.split())[:DESCRIPTION]
    parts = (
        f"- {subagent.spec.id}:",
        said,
        f"Input: {_input(subagent)}.",
        "" if subagent.spec.async_ else "Answers with the result, and you wait for it.",
    )
    return " ".join(filter(None, parts))


def _input(subagent: Subagent[..., Any]) -> str:
    shapes = {name: _shape_of(subagent, name) for name in subagent.signature.parameters}
    if not shapes:
        return "none (an empty text)"
    first, *others = shapes
    is_text = shapes[first] == "string" and not any(map(subagent.signature.requires, others))
    if is_text and not others:
        return f"text, the {first}"
    fields = (f'"{_key(subagent, name)}: {shape}' for name, shape in shapes.items())
    whole = f"JSON of the shape {{{', '.join(fields)}}}"
    return f"text, the {first}, or {whole}" if is_text else whole


def _key(subagent: Subagent[..., Any], name: str) -> str:
    return f'{name}"' if subagent.signature.requires(name) else f'{name}"?'


def _shape_of(subagent: Subagent[..., Any], name: str) -> str:
    try:
        schema = subagent.signature.types[name].adapter.json_schema()
    except PydanticUserError:  # a type that only Python has
        return "any"
    return _shape(schema, schema.get("$defs", {}), DEPTH)


def _shape(schema: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> str:
    """Return a JSON Schema in few words: `string`, `[integer]`, `{"a": number}`, `"x" | "y"`."""
    if depth == 0:
        return "any"
    if "$ref" in schema:
        return _shape(known.get(str(schema["$ref"]).rpartition("/")[2], {}), known, depth - 1)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_shape(each, known, depth) for each in schema["anyOf"]))
    if "properties" in schema:
        required = schema.get("required", ())
        fields = (
            f'"{name}"{"" if name in required else "?"}: {_shape(each, known, depth - 1)}'
            for name, each in schema["properties"].items()
        )
        return f"{{{', '.join(fields)}}}"
    if schema.get("type") == "array":
        return f"[{_shape(schema.get('items', {}), known, depth - 1)}]"
    return str(schema.get("type", "any"))
