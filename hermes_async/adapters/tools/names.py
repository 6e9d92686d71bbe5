"""Which tools agents.yaml may name, and how they are loaded.

A name is one of ours, or an entry point of the group `hermes_async.tools`, or a place
(`package.module:function`). A place may be in any module, as that of an agent's `run`: both are in the same
file, and whoever writes one could write the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Any, Final

from hermes_async.adapters.plugins.names import Kind
from hermes_async.adapters.tools.options import NO_OPTIONS, ToolOptions
from hermes_async.core.tool import Tool
from hermes_async.domain.errors import ConfigError, UserError, did_you_mean

KIND: Final = Kind("tool", "hermes_async.tools")
#: Our own: each is a module of this room, with a `make(options)`.
BUILT_IN: Final = ("arxiv_api", "ask_parent", "web_fetch", "web_search")
EXTRA: Final = "pip install 'hermes_async[llm]'"
_PLACE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class ToolNames(Collection[str]):
    """The names of all tools, found without importing any; nothing is looked at before it is needed."""

    options: ToolOptions = NO_OPTIONS

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.installed or is_place(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.installed)

    def __len__(self) -> int:
        return len(self.installed)

    @cached_property
    def installed(self) -> Mapping[str, EntryPoint]:
        """Our own tools, and the entry points of installed packages.

        Raises:
            ConfigError: two packages bring the same name.
        """
        return KIND.installed(EntryPoint(name, f"{__package__}.{name}:make", KIND.group) for name in BUILT_IN)


def load_tools(names: ToolNames, needed: Iterable[str]) -> Mapping[str, Tool]:
    """Load the tools of one agent, and return them by the names that agents.yaml gives them.

    Raises:
        ConfigError: one cannot be loaded, or is none, or two have the same name for the model.
    """
    loaded = {name: _loaded(names, name) for name in needed}
    called: dict[str, str] = {}
    for name, tool in loaded.items():
        before = called.setdefault(tool.name, name)
        if before != name:
            raise ConfigError(
                f"tools {before!r} and {name!r} are both called {tool.name!r}; give one another name with "
                "@tool(name=...)"
            )
    return MappingProxyType(loaded)


def is_place(name: str) -> bool:
    """Tell whether a name says where its function is."""
    return _PLACE.fullmatch(name) is not None


def cure(name: str, known: Collection[str]) -> str:
    """Return what helps against a name that nothing has."""
    return (
        did_you_mean(name, known) or "; install the package that brings it, or write package.module:function"
    )


def _loaded(names: ToolNames, name: str) -> Tool:
    if name in names.installed:
        entry = names.installed[name]
        if name in BUILT_IN:
            return _built_in(name, names.options)
        return _made(name, name, KIND.load_installed(entry))
    if is_place(name):
        return _made(name, name.rpartition(":")[2], KIND.load_placed(name))
    raise ConfigError(f"no tool is named {name!r}{cure(name, names)}")


def _built_in(name: str, options: ToolOptions) -> Tool:
    try:
        tool: Tool = import_module(f"{__package__}.{name}").make(options)
    except ModuleNotFoundError as error:
        raise ConfigError(f"tool {name!r} needs the package {error.name}; run `{EXTRA}`") from None
    return tool


def _made(name: str, called: str, found: Any) -> Tool:
    """Return the tool that a function, or a decorated one, is."""
    try:
        tool = found if isinstance(found, Tool) else Tool(called, found)
        _ = tool.schema
    except UserError as error:
        raise ConfigError(
            f"{error} (agents.yaml names it {name!r})" if called != name else str(error)
        ) from None
    return tool
