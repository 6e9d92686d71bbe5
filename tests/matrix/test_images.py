"""A container engine that has no image and no way to one is none: its cells are skipped, and say why."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.engine import why_not
from tests.support.servers import free_port
from tests.support.web import Web, web


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """What Docker's client takes for an engine."""
    why_not.cache_clear()
    with web() as engine:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{engine.place}")
        said(engine, "/version", 200, ApiVersion="1.44")
        yield engine
    why_not.cache_clear()


def said(engine: Web, path: str, status: int, **values: str) -> None:
    engine.answer(path, json.dumps(values), "application/json", status)


def test_an_image_that_is_there_will_do(engine: Web) -> None:
    said(engine, "/v1.44/images/redis:latest/json", 200, Id="sha256:1")
    assert why_not("redis:latest") == ""
    assert not engine.to("/v1.44/images/create")


def test_an_image_that_cannot_be_fetched_is_told_once(engine: Web) -> None:
    said(engine, "/v1.44/images/redis:latest/json", 404, message="No such image: redis:latest")
    said(engine, "/v1.44/images/create", 500, message="registry-1.docker.io: no such host")
    assert "the image redis:latest" in why_not("redis:latest")
    assert "no such host" in why_not("redis:latest")
    assert len(engine.to("/v1.44/images/create")) == 1


def test_no_engine_is_told(engine: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port()}")
    assert "refused" in why_not("redis:latest")
