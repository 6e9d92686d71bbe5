"""Functions by name: what installed packages bring, and what has a place as its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hermes_async.core.importing import importing
from hermes_async.domain.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """What is looked for.

    Args:
        word: what one of them is called in a sentence.
        group: the entry points of the packages that bring some.
    """

    word: str
    group: str

    def installed(self, known: Iterable[EntryPoint] = ()) -> Mapping[str, EntryPoint]:
        """Return the entry points of installed packages by name, beside those that are known anyway.

        Raises:
            ConfigError: two bring the same name.
        """
        found: dict[str, EntryPoint] = {}
        for each in (*known, *entry_points(group=self.group)):
            before = found.setdefault(each.name, each)
            if before.value != each.value:
                raise ConfigError(
                    f"two packages bring a {self.word} {each.name!r}: {before.value} and {each.value}; "
                    "uninstall one of the two"
                )
        return found

    def load_installed(self, entry: EntryPoint) -> Any:
        """Return what an entry point names.

        Raises:
            ConfigError: it cannot be loaded; the message says why.
        """
        package = f" of {entry.dist.name}" if entry.dist else ""
        with importing(entry.module, f"{self.word} {entry.name!r}{package}: cannot load {entry.value}"):
            return entry.load()

    def load_placed(self, place: str) -> Any:
        """Return what is at a place.

        Raises:
            ConfigError: nothing is, or its module cannot be imported; the message says why.
        """
        module, name = split(place)
        with importing(module, f"{self.word} {place!r}: cannot import {module!r}"):
            found = import_module(module)
        if not hasattr(found, name):
            raise ConfigError(
                f"{self.word} {place!r}: module {module!r} has no {name!r}{did_you_mean(name, vars(found))}"
            )
        return getattr(found, name)


def split(place: str) -> tuple[str, str]:
    """Return module and function of `package.module:function` or `package.module.function`."""
    module, _, name = place.partition(":") if ":" in place else place.rpartition(".")
    return module, name
