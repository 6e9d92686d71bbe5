"""`hermes-async doctor`: what is well here, what is not, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from hermes_async.bootstrap import Servers, registry
from hermes_async.cli import checks, exits
from hermes_async.cli.agents import entries
from hermes_async.cli.bridge import settings_of
from hermes_async.cli.checks import Finding
from hermes_async.cli.group import Command
from hermes_async.cli.shell import Shell
from hermes_async.cli.sources import sources
from hermes_async.cli.tables import show_rows
from hermes_async.settings import Settings


@click.command(
    cls=Command,
    example="doctor --json",
    epilog="Exit code: 0 nothing is broken (warnings may be), 1 something is.",
)
@click.pass_obj
def doctor(shell: Shell) -> int:
    """Check this machine and the servers, start nothing, and say which guarantees hold."""
    findings = list(_findings(settings_of(shell)))
    well = all(finding.status != "broken" for finding in findings)
    if shell.json:
        shell.answer({"ok": well, "checks": [asdict(finding) for finding in findings]})
    else:
        show_rows(shell, ("check", "status", "detail"), ((f.check, f.status, f.detail) for f in findings))
    return exits.OK if well else exits.FAILED


def _findings(settings: Settings) -> Iterator[Finding]:
    yield checks.python()
    yield _agents(settings)
    yield checks.binary(settings)
    yield from checks.folder(settings)
    servers = checks.where(settings)
    if servers is None:
        yield checks.stopped(settings)
    else:
        yield from _of_servers(settings, servers)
    yield checks.relay(settings)
    if settings.collects:
        yield checks.traces()


def _of_servers(settings: Settings, servers: Servers) -> Iterator[Finding]:
    found = list(checks.redis_findings(servers))
    yield from found
    answered = found[0].status != "broken"
    if answered or not servers.are_one:
        broker = checks.broker(servers)
        yield broker
        if broker.status != "broken":
            yield from checks.workers(servers, sources(settings))
    if answered:
        known = registry(settings)
        yield from checks.gate_findings(servers, filter(known.can_run, known))
    yield _guarantee(answered, found)


def _guarantee(answered: bool, found: list[Finding]) -> Finding:
    if not answered:
        return Finding(
            "guarantee", "broken", "no task can be accepted: the Redis of the state does not answer"
        )
    if any(finding.status == "warning" for finding in found):
        return Finding(
            "guarantee", "warning", "accepted tasks survive a crash of workers and relay, not one of Redis"
        )
    return Finding("guarantee", "ok", "accepted tasks survive a crash of workers, relay and Redis")


def _agents(settings: Settings) -> Finding:
    known = registry(settings)
    found = entries(known, known.check)
    problems = [entry.problem for entry in found if entry.problem]
    if problems:
        return Finding("agents", "broken", "; ".join(problems))
    place = settings.config or "no agents.yaml here"
    return Finding(
        "agents", "ok" if found else "warning", f"{len(found)} in {place}" if found else str(place)
    )
