"""`bin/bench [NAME ...]`: measure figures and print them."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import (
    asking,
    batching,
    burst,
    chatting,
    crowd,
    declared,
    dispatching,
    draining,
    fairness,
    fanout,
    footprint,
    memory,
    recovery,
    relaying,
    report,
    roundtrip,
    waking,
)
from benchmarks.figure import Line, measure
from benchmarks.stage import opened

FIGURES = {
    figure.name: figure
    for figure in (
        dispatching.FIGURE,
        batching.FIGURE,
        roundtrip.FIGURE,
        burst.FIGURE,
        burst.LARGE,
        draining.FIGURE,
        memory.FIGURE,
        recovery.FIGURE,
        fairness.FIGURE,
        asking.FIGURE,
        relaying.FIGURE,
        fanout.FIGURE,
        waking.FIGURE,
        chatting.FIGURE,
        crowd.FIGURE,
        footprint.FIGURE,
        declared.FIGURE,
    )
}
RUNS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked for; the exit code is 0 whatever the figures are."""
    options = _options(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _print(_measured(options), as_json=options.json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/bench", description="Measure hermes_async beside plain Celery, on a private Redis."
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of: {', '.join(FIGURES)} (default: all)")
    parser.add_argument("--runs", type=int, help=f"on each side, interleaved (default: {RUNS})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--quick", action="store_true", help="one run of smaller numbers: to see that it works"
    )
    parser.add_argument("--stock", action="store_true", help="beside Celery's default settings, not its best")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure {', '.join(unknown)}; there is {', '.join(FIGURES)}")
    options.runs = options.runs or (1 if options.quick else RUNS)
    if options.runs < 1:
        parser.error("--runs must be 1 or more")
    return options


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    began, stolen = time.monotonic(), report.Stolen()
    found: dict[str, list[Line]] = {}
    with opened(stock=options.stock) as stage:
        machine = report.machine(str(stage.server))
        for name in options.names or FIGURES:
            found[name] = measure(FIGURES[name], stage, options.runs, options.quick, _tell)
    return {
        "machine": machine | {"load_after": report.load(), "stolen_percent": stolen.percent()},
        "runs": options.runs,
        "quick": options.quick,
        "stock": options.stock,
        "wall_seconds": round(time.monotonic() - began, 1),
        "figures": found,
    }


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    found = result["figures"]
    if as_json:
        print(json.dumps({**result, "figures": report.as_values(found)}, indent=2))
        return
    where = result["machine"]
    print(report.as_table(found))
    print(
        f"\nmedian of {result['runs']} interleaved runs (lowest–highest); {where['cores']} cores, "
        f"Python {where['python']}, {where['redis']}, load {where['load']} before and "
        f"{where['load_after']} after, {where['stolen_percent']} % of the processors stolen meanwhile; "
        f"{result['wall_seconds']} s"
    )
    if result["stock"]:
        print("stock: plain Celery has its default settings and keeps results")
    if result["quick"]:
        print("quick: smaller numbers than the labels say, not to be quoted")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
