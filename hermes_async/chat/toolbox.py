"""What the parent's model can call: the six tools of delegation, and those that agents.yaml gives it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from hermes_async.core.delegation import NAMES, Delegation
from hermes_async.core.tool import Tool
from hermes_async.core.tool_call import call
from hermes_async.domain.errors import ConfigError, RetryAfter


class Toolbox:
    """Calls tools for a model; whatever goes wrong is a sentence for it.

    Args:
        delegation: the six tools.
        own: other tools, by their names in agents.yaml.

    Raises:
        ConfigError: one of them is called like one of the six, or needs to run within a task.
    """

    def __init__(self, delegation: Delegation, own: Mapping[str, Tool]) -> None:
        self._delegation = delegation
        self._own = {tool.name: tool for tool in own.values()}
        for name, tool in self._own.items():
            if self.is_delegation(name):
                raise ConfigError(f"tool {name!r} is called like a tool of delegation: give it another name")
            if tool.takes_context:
                raise ConfigError(f"tool {name!r} takes a TaskContext, which a conversation does not have")

    @cached_property
    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """Every tool as pydantic-ai is told of it."""
        six = [
            {
                "name": one["name"],
                "description": one["description"],
                "parameters_json_schema": one["parameters"],
                "strict": one.get("strict"),
            }
            for one in (schema["function"] for schema in self._delegation.schemas)
        ]
        own = [
            {"name": name, "description": tool.description, "parameters_json_schema": tool.schema}
            for name, tool in self._own.items()
        ]
        return [*six, *own]

    def is_delegation(self, name: str) -> bool:
        """Tell whether a tool is one of the six: they are quick, and what they began is not to be cut off."""
        return name in NAMES

    async def call(self, name: str, arguments: str | Mapping[str, Any] | None) -> str:
        """Call a tool and return what the model is told."""
        tool = self._own.get(name)
        if tool is None:
            # Without the id of the call: no call is made twice here, and some servers give an id again.
            return await self._delegation.call(name, arguments)
        try:
            given = json.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments
        except (ValueError, RecursionError) as error:
            return f"{name}: the arguments are not JSON ({error}); call it again"
        if not isinstance(given, Mapping):
            return f"{name}: the arguments must be a JSON object; call it again"
        try:
            return await call(tool, None, given)
        except RetryAfter as error:
            return f"{name} cannot be used just now: {error}; go on without it"
