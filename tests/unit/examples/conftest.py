"""Packages made for a test, and an event loop."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

MakePackage = Callable[[Mapping[str, str]], str]

_numbers = count()


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePackage:
    """Write files as an importable package of a new name (shelves are kept per process); return the name."""

    def make(files: Mapping[str, str]) -> str:
        name = f"sample{next(_numbers)}"
        for path, text in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text).replace("PACKAGE", name))
        importlib.invalidate_caches()
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return make
