"""`hermes-async metrics`: the figures of the project, for people without Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Command
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_pairs, show_rows
from hermes_async.cli.words import ago, seconds
from hermes_async.core.hermes import Hermes
from hermes_async.core.ledger import Backlog
from hermes_async.core.metrics import Histogram, Metrics
from hermes_async.core.ports import Traffic
from hermes_async.domain.task import TERMINAL
from hermes_async.domain.usage import NO_USAGE, Usage

_COLUMNS: Final = (
    *("agent", "tasks", "completed", "failed", "cancelled", "retries", "lost"),
    *("wait p50/p95", "attempt p50/p95", "tokens", "cost"),
)
_ENDS: Final = {str(status): f"task.{status}" for status in sorted(TERMINAL)}
_CALLS: Final = ("succeeded", "failed", "dead")
#: Of the times, in JSON.
_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

_Found = tuple[Metrics, Traffic, Backlog]


@click.command(
    cls=Command,
    example=("metrics", "metrics --json"),
    epilog="The times are read off histograms, so about right. docs/metrics.md has the same for Prometheus.",
)
@click.pass_obj
def metrics(shell: Shell) -> None:
    """Show how many tasks there were, how they ended, how long they took, and what waits."""
    found = with_hermes(settings_of(shell), _read)
    if shell.json:
        shell.answer(_as_json(found))
        return
    show_pairs(shell, _standing(found))
    if shell.on_terminal:
        click.echo()
    show_rows(shell, _COLUMNS, (_row(found[0], agent) for agent in _agents(found[0])))


async def _read(hermes: Hermes) -> _Found:
    store = hermes.store
    return await store.metrics(), await store.traffic(), await store.ledger.backlog()


def _agents(counted: Metrics) -> list[str]:
    return sorted({what.agent for what in counted.counts if what.agent})


def _standing(found: _Found) -> Iterator[tuple[str, str]]:
    counted, traffic, backlog = found
    oldest = f"; the oldest not begun for {seconds(counted.oldest)}" if counted.oldest is not None else ""
    yield "open", ", ".join(f"{number} {status}" for status, number in counted.open.items()) + oldest
    lanes = (f"{traffic.admitted[lane]} of {slots} {lane}" for lane, slots in traffic.slots.items())
    yield "slots", f"{', '.join(lanes)}; {traffic.waiting} wait for their turn"
    calls = ", ".join(f"{counted.total(f'callback.{outcome}')} {outcome}" for outcome in _CALLS)
    yield "callbacks", f"{calls}; {backlog.waiting} wait, {backlog.dead} are dead letters"
    yield "events", str(sum(counted.counts.values()))
    yield "counted", f"since {ago(counted.since)}" if counted.since is not None else ""


def _row(counted: Metrics, agent: str) -> tuple[str, ...]:
    def of(*types: str) -> str:
        return str(counted.total(*types, agent=agent))

    spent = _spent(counted, agent)
    return (
        agent,
        of("task.queued"),
        of("task.completed"),
        of("task.failed", "task.rejected"),
        of("task.cancelled"),
        of("task.retrying"),
        of("task.attempt_lost"),
        _quantiles(counted.waits.get(agent)),
        _quantiles(counted.runs.get(agent)),
        f"{spent.total_tokens:,}" if spent.total_tokens else "-",
        f"${spent.cost_usd:,.4f}" if spent.cost_usd else "-",
    )


def _spent(counted: Metrics, agent: str) -> Usage:
    return sum((usage for who, usage in counted.spent.items() if who.agent == agent), start=NO_USAGE)


def _quantiles(times: Histogram | None) -> str:
    found = [times.quantile(share) for share in (0.5, 0.95)] if times else []
    return " / ".join(_duration(took) for took in found if took is not None) or "-"


def _duration(took: float) -> str:
    return f"{took * 1000:.0f} ms" if took < 1 else seconds(took)


def _as_json(found: _Found) -> dict[str, Any]:
    counted, traffic, backlog = found
    callbacks = {outcome: counted.total(f"callback.{outcome}") for outcome in _CALLS}
    return {
        "since": counted.since,
        "open": {**counted.open},
        "oldest_waiting": counted.oldest,
        "waiting": traffic.waiting,
        "admitted": {**traffic.admitted},
        "slots": {**traffic.slots},
        "callbacks": {**callbacks, "waiting": backlog.waiting, "dead_letters": backlog.dead},
        "agents": {agent: _agent_as_json(counted, agent) for agent in _agents(counted)},
    }


def _agent_as_json(counted: Metrics, agent: str) -> dict[str, Any]:
    def of(type_: str) -> int:
        return counted.total(type_, agent=agent)

    mine = {what: number for what, number in counted.counts.items() if what.agent == agent}
    failed = {what.detail: number for what, number in mine.items() if what.type == "task.failed"}
    spent = {who.model: usage for who, usage in counted.spent.items() if who.agent == agent}
    return {
        "dispatched": of("task.queued"),
        **{status: of(type_) for status, type_ in _ENDS.items()},
        "failed_by_reason": failed,
        "attempts": of("task.started"),
        "retries": of("task.retrying"),
        "lost": of("task.attempt_lost"),
        "wait": _times_as_json(counted.waits.get(agent)),
        "attempt": _times_as_json(counted.runs.get(agent)),
        "spent": {model: usage.model_dump() for model, usage in spent.items()},
    }


def _times_as_json(times: Histogram | None) -> dict[str, float | None]:
    times = times or Histogram()
    shares = {name: _rounded(times.quantile(share)) for name, share in _SHARES.items()}
    return {"count": times.count, "seconds": round(times.seconds, 3), **shares}


def _rounded(took: float | None) -> float | None:
    return None if took is None else round(took, 3)
