"""Models of values that were checked when they were written.

Pydantic's own `model_construct` copies defaults and names at each call, which costs a worker more time and
memory than all else that it does for a task that only waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

_set = object.__setattr__


def trusted(cls: type[M], values: Mapping[str, Any]) -> M:
    """Return a frozen model of values that are known to fit; the rest are its defaults, which all share."""
    model = cls.__new__(cls)
    _set(model, "__dict__", {**_defaults(cls), **values})
    _set(model, "__pydantic_fields_set__", _names(cls))
    _set(model, "__pydantic_extra__", None)
    _set(model, "__pydantic_private__", None)
    return model


@cache
def _defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the fields in their order; a value that must be given is None until it is."""
    return {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
    }


@cache
def _names(cls: type[BaseModel]) -> set[str]:
    return set(cls.model_fields)
