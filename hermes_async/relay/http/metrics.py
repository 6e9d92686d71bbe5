"""The relay and the project in figures, as Prometheus reads them; no label names a session or a task."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Final

from hermes_async.core.ledger import Backlog
from hermes_async.core.metrics import Counted, Histogram, Metrics
from hermes_async.core.ports import Traffic
from hermes_async.domain.lifecycle import TARGET, TERMINAL_TYPES
from hermes_async.relay.http.exposition import Labels, histogram, metric

#: Told of every agent that has had a task, be it 0: Prometheus sees no increase of what was not there before.
_TOLD: Final = (
    *(("task.completed", ""), ("task.cancelled", ""), ("task.failed", "error"), ("task.failed", "timeout")),
    *(("task.retrying", "error"), ("task.attempt_lost", "worker_lost"), ("task.attempt_lost", "shutdown")),
)
_OUTCOMES: Final = ("callback.succeeded", "callback.failed", "callback.dead")

Samples = Iterable[tuple[Labels, float]]


def page(counted: Metrics, traffic: Traffic, backlog: Backlog, relay: Mapping[str, float]) -> str:
    """Return the figures.

    Args:
        counted: what the pen has counted, and how the tasks stand.
        traffic: what the gate sees.
        backlog: what the ledger of callbacks holds.
        relay: what this relay counts, by the name of the metric.
    """
    of_tasks = (_counts(counted), _times(counted), _spent(counted), _standing(counted), _traffic(traffic))
    return "".join(f"{line}\n" for line in chain(*of_tasks, _backlog(backlog), _relay(relay), _process()))


def _counts(counted: Metrics) -> Iterator[str]:
    known = {**_zeros(counted), **counted.counts}

    def of(*types: str) -> Iterator[tuple[Counted, int]]:
        return ((what, number) for what, number in sorted(known.items()) if what.type in types)

    def by_agent(type_: str, why: str = "") -> Samples:
        for what, number in of(type_):
            yield {"agent": what.agent} | ({why: what.detail} if why else {}), number

    ends = [
        ({"agent": what.agent, "status": TARGET[what.type], "reason": what.detail}, number)
        for what, number in of(*TERMINAL_TYPES)
    ]
    yield from metric("hermes_dispatched_total", "Tasks that were accepted.", by_agent("task.queued"))
    yield from metric("hermes_tasks_total", "Tasks that have ended.", ends)
    yield from metric("hermes_attempts_total", "Attempts that were started.", by_agent("task.started"))
    yield from metric(
        "hermes_retries_total", "Attempts that failed, to be repeated.", by_agent("task.retrying", "reason")
    )
    yield from metric(
        "hermes_attempts_lost_total",
        "Attempts that ended without a word.",
        by_agent("task.attempt_lost", "cause"),
    )
    yield from metric("hermes_callbacks_total", "Calls of callbacks, by what they came to.", _calls(counted))
    yield from metric("hermes_events_total", "Events that were logged.", _events(counted))


def _zeros(counted: Metrics) -> dict[Counted, int]:
    agents = {what.agent for what in counted.counts if what.type == "task.queued"}
    return {Counted(*what, agent): 0 for agent in agents for what in _TOLD}


def _calls(counted: Metrics) -> Samples:
    told: Counter[tuple[str, str]] = Counter()
    for what, number in counted.counts.items():
        if what.type in _OUTCOMES:
            told.update({(what.detail, outcome): 0 for outcome in _OUTCOMES})
            told[what.detail, what.type] += number
    for (kind, type_), number in sorted(told.items()):
        yield {"kind": kind, "outcome": type_.removeprefix("callback.")}, number


def _events(counted: Metrics) -> Samples:
    types: Counter[str] = Counter()
    for what, number in counted.counts.items():
        types[what.type] += number
    return [({"type": type_}, number) for type_, number in sorted(types.items())]


def _spent(counted: Metrics) -> Iterator[str]:
    found = [
        ({"agent": who.agent, "model": who.model}, usage) for who, usage in sorted(counted.spent.items())
    ]

    def of(field: str) -> Samples:
        return [(who, getattr(usage, field)) for who, usage in found if getattr(usage, field)]

    tokens = [
        ({**who, "direction": direction}, number)
        for direction in ("input", "output")
        for who, number in of(f"{direction}_tokens")
    ]
    yield from metric("hermes_requests_total", "Requests to models.", of("requests"))
    yield from metric("hermes_tool_calls_total", "Calls of tools by models.", of("tool_calls"))
    yield from metric("hermes_tokens_total", "Tokens that models have read and written.", tokens)
    yield from metric("hermes_cost_usd_total", "US dollars that models have cost.", of("cost_usd"))


def _times(counted: Metrics) -> Iterator[str]:
    def by_agent(found: Mapping[str, Histogram]) -> Iterator[tuple[Labels, Histogram]]:
        return (({"agent": agent}, times) for agent, times in sorted(found.items()))

    yield from histogram(
        "hermes_wait_seconds", "From a dispatch to the first attempt.", by_agent(counted.waits)
    )
    yield from histogram(
        "hermes_attempt_seconds", "From an attempt's start to its end.", by_agent(counted.runs)
    )


def _standing(counted: Metrics) -> Iterator[str]:
    standing = [({"status": status}, number) for status, number in counted.open.items()]
    yield from metric("hermes_tasks_open", "Tasks that have not ended.", standing)
    yield from metric(
        "hermes_oldest_waiting_seconds", "Age of the oldest not begun.", _one(counted.oldest or 0)
    )


def _traffic(traffic: Traffic) -> Iterator[str]:
    yield from metric(
        "hermes_tasks_admitted", "Tasks on the broker or running.", _by("lane", traffic.admitted)
    )
    yield from metric("hermes_slots", "Tasks that all workers can run at once.", _by("lane", traffic.slots))
    yield from metric("hermes_tasks_waiting", "Tasks that wait for their turn.", _one(traffic.waiting))
    yield from metric("hermes_swept_total", "What the janitors have found.", _by("kind", traffic.swept))
    yield from metric("hermes_janitor_up", "1: a janitor sweeps.", _one(traffic.leader is not None))


def _backlog(backlog: Backlog) -> Iterator[str]:
    oldest = backlog.oldest or 0
    yield from metric("hermes_callbacks_waiting", "Callbacks that are due.", _one(backlog.waiting))
    yield from metric("hermes_callbacks_dead", "Callbacks that were given up.", _one(backlog.dead))
    yield from metric("hermes_callbacks_oldest_seconds", "Age of the oldest that is due.", _one(oldest))
    yield from metric("hermes_callers", "Processes that make calls.", _one(backlog.callers))


def _relay(counts: Mapping[str, float]) -> Iterator[str]:
    for name, count in counts.items():
        told = name.removesuffix("_total").replace("_", " ").capitalize()
        yield from metric(f"hermes_relay_{name}", f"{told} of this relay.", _one(count))


def _process() -> Iterator[str]:
    yield from metric("process_cpu_seconds_total", "CPU of this relay.", _one(time.process_time()))
    with suppress(OSError):  # Linux tells it
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        yield from metric("process_resident_memory_bytes", "Memory of this relay.", _one(resident))


def _one(value: float) -> Samples:
    return [({}, value)]


def _by(label: str, found: Mapping[str, float]) -> Samples:
    return [({label: value}, number) for value, number in found.items()]
