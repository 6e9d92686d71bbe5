"""What `import hermes_async` gives, and what it does not cost."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hermes_async
from hermes_async import bootstrap, sdk, testing

HEAVY = {"celery", "redis", "kombu", "socketio", "yaml", "click", "fastapi", "starlette", "aiohttp", "rich"}


def imported_names(module: object) -> set[str]:
    """The public names that a module's file imports, whether at once or on demand."""
    file = getattr(module, "__file__", None)
    assert isinstance(file, str)
    nodes = ast.walk(ast.parse(Path(file).read_text()))
    from_ours = (
        node for node in nodes if isinstance(node, ast.ImportFrom) and "hermes_async" in (node.module or "")
    )
    return {alias.asname or alias.name for node in from_ours for alias in node.names}


@pytest.mark.parametrize("module", [hermes_async, sdk])
def test_all_is_sorted_and_complete(module: object) -> None:
    names = list(vars(module)["__all__"])
    assert names == sorted(set(names))
    assert set(names) == imported_names(module)
    for name in names:
        assert getattr(module, name) is not None


def test_what_authors_import_is_also_at_the_top() -> None:
    assert set(sdk.__all__) <= set(hermes_async.__all__)
    for name in sdk.__all__:
        assert getattr(hermes_async, name) is getattr(sdk, name)


def test_connect_is_there_on_demand() -> None:
    assert hermes_async.connect is bootstrap.connect
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        _ = hermes_async.conect  # type: ignore[attr-defined]


def test_testing_says_what_it_offers() -> None:
    assert list(testing.__all__) == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_importing_costs_no_technology() -> None:
    code = "import json, sys, hermes_async.sdk; print(json.dumps([*sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    modules = {name.partition(".")[0] for name in json.loads(out)}
    assert modules.isdisjoint(HEAVY)
    assert "hermes_async" in modules


def test_the_version_is_a_version() -> None:
    assert all(part.isdecimal() for part in hermes_async.__version__.split("."))
