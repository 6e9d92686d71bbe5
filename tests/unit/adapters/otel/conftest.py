"""The benches of the core's tests."""

from tests.unit.core.conftest import bench, make_bench

__all__ = ["bench", "make_bench"]
