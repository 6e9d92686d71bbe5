"""A site for each test: workers of its own over an empty Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.servers import Process
from tests.support.site import Site, site_over


@pytest.fixture
async def site(
    redis_url: str, tmp_path: Path, spawn: Callable[..., Process], anyio_backend: str
) -> AsyncIterator[Site]:
    async with site_over(redis_url, tmp_path, spawn) as site:
        yield site
