"""`bin/chaos --minutes N [--seed S] [--json]`: rounds of chaos, a table, and 1 if a promise was broken."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.acceptance.faults.chaos import Report, run
from tests.acceptance.faults.checker import Kind

#: Seconds of one round: short enough to repeat, and for a log that is not trimmed meanwhile.
ROUND = 240.0


def rounds(minutes: float, seed: int, folder: Path) -> list[Report]:
    """Run round after round, each with the next seed, until the time is over or something is broken."""
    end, reports = time.monotonic() + 60 * minutes, list[Report]()
    while (left := end - time.monotonic()) > 0 and not any(report.violations for report in reports):
        number = seed + len(reports)
        place = folder / str(number)
        click.echo(f"seed {number}, {min(left, ROUND):.0f} s, in {place}", err=True)
        reports.append(run(place, number, min(left, ROUND), lambda text: click.echo(f"  {text}", err=True)))
    return reports


def summary(reports: list[Report]) -> dict[str, Any]:
    """Return the figures of all rounds together."""
    tasks, faults, broken = Counter[str](), Counter[str](), Counter[Kind]()
    for report in reports:
        tasks.update(report.tasks)
        faults.update(report.faults)
        broken.update(report.counts)
    return {
        "seeds": [report.seed for report in reports],
        "tasks": dict(tasks),
        "faults": dict(faults),
        "recovery": {
            **_percentiles("lost attempt", [each for report in reports for each in report.recoveries]),
            **_percentiles("all at work", [each for report in reports for each in report.returns]),
        },
        "must be zero": {kind.value: broken[kind] for kind in Kind},
    }


def _percentiles(what: str, seconds: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, 0 of nothing."""
    ranked = sorted(seconds) or [0.0]
    return {f"{what} p{share}": round(ranked[len(ranked) * share // 100], 2) for share in (50, 99)}


def show(figures: dict[str, Any]) -> None:
    """Print them as a table."""
    table = Table("", "", "count", title="chaos")
    for part in ("tasks", "faults", "must be zero"):
        for name, count in sorted(figures[part].items(), key=lambda each: -each[1]):
            table.add_row(part, name, str(count))
        table.add_section()
    for name, seconds in figures["recovery"].items():
        table.add_row("recovery", name, f"{seconds:.2f} s")
    Console().print(table)


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True)
@click.option("--seed", type=int, help="Of the first round; a random one by default.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def main(minutes: float, seed: int | None, as_json: bool) -> None:
    """Break everything at random while parents work, and judge what came of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # let the stage end what it has started
    folder = Path(tempfile.mkdtemp(prefix="hermes-chaos-"))
    reports = rounds(minutes, random.randrange(10_000) if seed is None else seed, folder)
    figures = summary(reports)
    click.echo(json.dumps(figures)) if as_json else show(figures)
    if not any(report.violations for report in reports):
        shutil.rmtree(folder)
        return
    for report in reports:
        for kind, text in report.violations[:50]:
            click.echo(f"seed {report.seed}: {kind}: {text}", err=True)
    click.echo(f"the ledger and the logs are in {folder}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
