"""The benches of the core's tests."""

from tests.unit.core.conftest import anyio_backend, bench, make_bench

__all__ = ["anyio_backend", "bench", "make_bench"]
