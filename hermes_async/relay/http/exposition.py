"""The text format of Prometheus: how metrics are written down, whatever they tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from hermes_async.core.metrics import Histogram

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: The values of labels, by their names.
Labels = Mapping[str, str]

_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def metric(name: str, told: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """Yield the lines of a counter, whose name ends with `_total`, or else of a gauge."""
    yield from _head(name, told, "counter" if name.endswith("_total") else "gauge")
    for labels, value in samples:
        yield _sample(name, labels, value)


def histogram(name: str, told: str, samples: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    """Yield the lines of histograms of one name: each bucket counts all that took no longer."""
    yield from _head(name, told, "histogram")
    for labels, found in samples:
        for edge, so_far in found.cumulative():
            yield _sample(f"{name}_bucket", {**labels, "le": _number(edge)}, so_far)
        yield _sample(f"{name}_sum", labels, found.seconds)
        yield _sample(f"{name}_count", labels, found.count)


def _head(name: str, told: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{text.translate(_ESCAPED)}"' for label, text in labels.items() if text)
    return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
