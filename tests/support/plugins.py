"""Names of installed packages, as tests invent them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from hermes_async.adapters.plugins import names as plugin_names
from hermes_async.domain.errors import ConfigError


def installed(monkeypatch: pytest.MonkeyPatch, group: str, **places: str) -> None:
    """Let packages bring these entry points to a group, and no others."""
    entries = [EntryPoint(name, place, group) for name, place in places.items()]

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [entry for entry in entries if entry.group == group]

    monkeypatch.setattr(plugin_names, "entry_points", entry_points)


def refusal(load: Callable[[], Any]) -> str:
    """Return the sentence with which something is not loaded."""
    with pytest.raises(ConfigError) as caught:
        load()
    return str(caught.value)
