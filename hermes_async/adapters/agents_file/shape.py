"""What the models allow at each place of agents.yaml: the map for overrides, texts and error sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.spec import Must, Spec

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Shape:
    """What may stand at one place: a `kind` of value, in words what it `must` be, and what its `item` is."""

    kind: Any
    must: str = ""
    item: Any = None

    @property
    def is_scalar(self) -> bool:
        """True for a single value."""
        return self.kind in (str, bool, int, float, Literal)

    @property
    def is_text(self) -> bool:
        """True when `12` here is the text "12"."""
        return self.kind in (str, Literal)

    def keys(self) -> dict[str, Shape]:
        """Return what may stand below: the keys of a part of the configuration, else nothing."""
        return _fields(self.kind) if isinstance(self.kind, type) and issubclass(self.kind, Spec) else {}

    def below(self, key: str | int) -> Shape:
        """Return the shape under a key or an index (of nothing at all, when there is none)."""
        return self.item if self.item is not None else self.keys().get(str(key), NOTHING)


NOTHING = Shape(None)


@lru_cache(maxsize=64)
def _fields(model: type[Spec]) -> dict[str, Shape]:
    """Return the shapes of a model's fields by their names in the file."""
    hints = get_type_hints(model, include_extras=True)
    return {
        field.alias or name: _shape(hints[name])
        for name, field in model.model_fields.items()
        if name != "name"
    }


def _shape(hint: Any, must: str = "") -> Shape:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = [extra.be for extra in arguments[1:] if isinstance(extra, Must)]
        return _shape(arguments[0], words[0] if words else must)
    if origin in (Union, UnionType):
        first, *others = (_shape(one, must) for one in arguments if one is not NoneType)
        return replace(first, item=first.item or next((other.item for other in others), None))
    if origin is Literal:
        return Shape(Literal, " or ".join(f'"{choice}"' for choice in arguments))
    if origin is tuple:
        return Shape(tuple, "a list, each entry on a line that begins with `- `", _shape(arguments[0]))
    if origin is Mapping:
        return Shape(Mapping, "keys and values, indented below it", _shape(arguments[1]))
    return Shape(hint, must or "keys and values, indented below it")


ROOT = _shape(AgentsConfig)


def shape_at(loc: Loc) -> Shape:
    """Return what the models allow at `loc`."""
    shape = ROOT
    for key in loc:
        shape = shape.below(key)
    return shape


def label(loc: Loc) -> str:
    """Return the shortest clear name of a place: `timeout`, `retry.initial`, `an entry of tools`."""
    if isinstance(loc[-1], int):
        return f"an entry of {label(loc[:-1])}"
    if len(loc) == 2 and loc[0] == "agents":
        return f"agent {loc[1]!r}"
    start = max((at + 1 for at, key in enumerate(loc) if isinstance(key, int)), default=0)
    if start == 0 and loc[0] == "agents":
        start = min(2, len(loc) - 1)
    return ".".join(str(key) for key in loc[start:])
