"""Models without a key of this machine's environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hermes_async.adapters.model.names import KEYS
from tests.support.model import ScriptedModel
from tests.support.thinking import Start, starting


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for variables in KEYS.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def scripted() -> Iterator[ScriptedModel]:
    """A model that says what it is told to; give it replies with `then`."""
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def start(scripted: ScriptedModel) -> Start:
    """A Hermes whose parent `boss` calls `research`, which the scripted model runs."""
    return starting(scripted)
