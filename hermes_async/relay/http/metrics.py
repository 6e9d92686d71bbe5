"""The relay and the project in figures, as Prometheus reads them; no label names a session or a task."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from hermes_async.core.ledger import Backlog
from hermes_async.core.ports import Traffic

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def page(traffic: Traffic, backlog: Backlog, relay: Mapping[str, float]) -> str:
    """Return the figures.

    Args:
        traffic: what the gate sees.
        backlog: what the ledger of callbacks holds.
        relay: what this relay counts, by the name of the metric.
    """
    told = [*_of_traffic(traffic), *_of_backlog(backlog), *_of_relay(relay), *_of_process()]
    return "".join(line + "\n" for line in told)


def _of_traffic(traffic: Traffic) -> Iterator[str]:
    yield from _metric("hermes_tasks_admitted", "Tasks on the broker or running.", traffic.admitted, "lane")
    yield from _metric("hermes_slots", "Tasks that all workers can run at once.", traffic.slots, "lane")
    yield from _metric("hermes_tasks_waiting", "Tasks that wait for their turn.", {"": traffic.waiting})
    yield from _metric("hermes_swept_total", "What the janitors have found.", traffic.swept, "kind")
    yield from _metric("hermes_janitor_up", "1: a janitor sweeps.", {"": traffic.leader is not None})


def _of_backlog(backlog: Backlog) -> Iterator[str]:
    oldest = backlog.oldest or 0.0
    yield from _metric("hermes_callbacks_waiting", "Callbacks that are due.", {"": backlog.waiting})
    yield from _metric("hermes_callbacks_dead", "Callbacks that were given up.", {"": backlog.dead})
    yield from _metric("hermes_callbacks_oldest_seconds", "Age of the oldest that is due.", {"": oldest})
    yield from _metric("hermes_callers", "Processes that make calls.", {"": backlog.callers})


def _of_relay(counts: Mapping[str, float]) -> Iterator[str]:
    for name, count in counts.items():
        told = name.removesuffix("_total").replace("_", " ").capitalize()
        yield from _metric(f"hermes_relay_{name}", f"{told} of this relay.", {"": count})


def _of_process() -> Iterator[str]:
    yield from _metric("process_cpu_seconds_total", "CPU of this relay.", {"": time.process_time()})
    with suppress(OSError):  # Linux tells it
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        yield from _metric("process_resident_memory_bytes", "Memory of this relay.", {"": resident})


def _metric(name: str, told: str, samples: Mapping[str, float], label: str = "") -> Iterator[str]:
    """Yield the lines of a metric: one sample, or one for each value of the label."""
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
    for value, count in samples.items():
        shown = f'{{{label}="{value}"}}' if label else ""
        yield f"{name}{shown} {float(count):.17g}"
