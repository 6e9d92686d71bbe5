"""What a parent process costs: the time of the import, and the memory once it has dispatched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.children import run_python
from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.stage import Stage

_IMPORT = """
import time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""
_MEMORY = """
import psutil
memory = psutil.Process().memory_full_info()
print(memory.rss, getattr(memory, "pss", 0))
"""
_HERMES = f"""
import asyncio
from hermes_async import connect

async def main():
    async with connect() as hermes:
        await hermes.session("bench").dispatch("noop")
        await asyncio.sleep(0.5)
{_MEMORY.replace(chr(10), chr(10) + 8 * " ")}
asyncio.run(main())
"""
_PLAIN = f"""
import time
from benchmarks import plain
plain.noop.apply_async()
time.sleep(0.5)
{_MEMORY}
"""


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    stage.flush()
    yield Sides(
        lambda: _sample(stage, "hermes_async", _HERMES),
        lambda: _sample(stage, "celery.app.base", _PLAIN),
    )


def _sample(stage: Stage, module: str, source: str) -> Sample:
    imported = run_python(_IMPORT.format(module=module), stage.env)
    rss, pss = run_python(source, stage.env).split()
    sample = {"import": float(imported), "rss": int(rss) / 1e6}
    return sample | ({"pss": int(pss) / 1e6} if pss != "0" else {})


FIGURE = Figure(
    "footprint",
    [
        Row("import", "`import hermes_async`", "s", Goal("<", 0.35)),
        Row("rss", "parent after one dispatch, RSS", "MB", Goal("<", 80)),
        Row("pss", "parent after one dispatch, PSS", "MB"),
    ],
    _open,
)
