"""What the parent's model can call: the six tools of delegation, and those that agents.yaml gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from hermes_async.core.delegation import NAMES, Delegation


class Toolbox:
    """Calls tools for a model; whatever goes wrong is a sentence for it.

    Args:
        delegation: the six tools.
    """

    def __init__(self, delegation: Delegation) -> None:
        self._delegation = delegation

    @cached_property
    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """Every tool as pydantic-ai is told of it."""
        return [
            {
                "name": one["name"],
                "description": one["description"],
                "parameters_json_schema": one["parameters"],
                "strict": one.get("strict"),
            }
            for one in (schema["function"] for schema in self._delegation.schemas)
        ]

    def is_delegation(self, name: str) -> bool:
        """Tell whether a tool is one of the six: they are quick, and what they began is not to be cut off."""
        return name in NAMES

    async def call(self, name: str, arguments: str | Mapping[str, Any] | None, call_id: str) -> str:
        """Call a tool and return what the model is told."""
        return await self._delegation.call(name, arguments, call_id=call_id)
