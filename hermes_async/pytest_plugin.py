"""What pytest finds of itself where hermes_async is installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.testing import LocalHermes


@pytest.fixture
def local_hermes() -> Callable[..., AbstractAsyncContextManager[Hermes]]:
    """`async with local_hermes(my_agent) as hermes:` in a test."""
    return LocalHermes
