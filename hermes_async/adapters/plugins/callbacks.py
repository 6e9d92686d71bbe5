"""Callbacks by name: from installed packages, from modules that the operator allows, from a folder.

A name is looked up in this order: the entry points of the group `hermes_async.callbacks`, the dotted places
(`package.module:function`) in allowed modules, the functions in `hermes_callbacks/`. Everybody may know the
names; only the worker that makes the calls, and `agents check`, load what they stand for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from hermes_async.adapters.plugins import callback_folder
from hermes_async.adapters.plugins.names import Kind, split
from hermes_async.domain.errors import ConfigError, did_you_mean

KIND: Final = Kind("callback", "hermes_async.callbacks")

Function = Callable[..., Any]


@dataclass(frozen=True)
class CallbackNames(Collection[str]):
    """The names of all callbacks, found without importing any; nothing is looked at before it is needed.

    Args:
        folder: that of the project's own callbacks; it need not be there.
        modules: modules and packages of which any function may be named by its dotted place.
    """

    folder: Path
    modules: tuple[str, ...] = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.installed or self.allows(name) or name in self.own)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.installed, *sorted(self.own))))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @cached_property
    def installed(self) -> Mapping[str, EntryPoint]:
        """The entry points of installed packages.

        Raises:
            ConfigError: two packages bring the same name.
        """
        return KIND.installed()

    @cached_property
    def own(self) -> frozenset[str]:
        """The functions in the folder."""
        return callback_folder.defined(self.folder)

    def allows(self, name: str) -> bool:
        """Tell whether a name is a dotted place in an allowed module."""
        module = split(name)[0] if is_place(name) else ""
        return any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.modules)


def load_callbacks(names: CallbackNames, needed: Iterable[str]) -> Mapping[str, Function]:
    """Load the folder and every callback that is needed, and return the functions by name.

    Raises:
        ConfigError: one cannot be loaded, or is none; the message says where.
    """
    loaded = callback_folder.load(names.folder)
    for name in needed:
        if name in names.installed:
            loaded[name] = KIND.load_installed(names.installed[name])
        elif names.allows(name):
            loaded[name] = KIND.load_placed(name)
        elif name not in loaded:
            raise ConfigError(f"no callback is named {name!r}{cure(name, names)}")
    for name, function in loaded.items():
        _check(name, function)
    return MappingProxyType(loaded)


def is_place(name: str) -> bool:
    """Tell whether a name says where its function is."""
    return ":" in name or "." in name


def cure(name: str, known: Collection[str]) -> str:
    """Return what helps against a name that nothing has."""
    if is_place(name):
        return f"; allow its module with HERMES_CALLBACK_MODULES={split(name)[0]}"
    return did_you_mean(name, known) or f"; define it in {callback_folder.FOLDER}/ beside agents.yaml"


def _check(name: str, function: Function) -> None:
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:  # one in C tells nothing of its parameters
        return
    except TypeError as error:
        takes = "a callback is a function that takes a result and the parent's context"
        raise ConfigError(f"callback {name!r}: {error}; {takes}") from None
