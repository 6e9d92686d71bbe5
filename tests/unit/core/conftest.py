"""Benches that are closed after the test, and a core that is in a hurry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hermes_async.core import journal, reporter
from hermes_async.core.subagent import Subagent
from tests.support.bench import Bench, MakeBench


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "INSIST_EVERY", 0.005)
    monkeypatch.setattr(reporter, "EVERY", 0.02)


@pytest.fixture
async def make_bench(anyio_backend: str) -> AsyncIterator[MakeBench]:
    made: list[Bench] = []

    def make(*agents: Subagent[..., Any], **options: Any) -> Bench:
        made.append(Bench(*agents, **options))
        return made[-1]

    yield make
    for bench in made:
        await bench.hermes.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()
