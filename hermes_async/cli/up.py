"""`hermes-async up`: everything that a project needs, on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.to_thread
import click

from hermes_async.adapters.embedded_redis import EmbeddedRedis
from hermes_async.bootstrap import registry
from hermes_async.cli.agents import Entry, entries
from hermes_async.cli.bridge import run, settings_of, with_hermes
from hermes_async.cli.collector import Collector
from hermes_async.cli.console import Console, begins, is_worker_ready
from hermes_async.cli.group import Command
from hermes_async.cli.hints import FIRST_FILE
from hermes_async.cli.serve import CALLBACKS, CALLBACKS_READY, RELAY_READY
from hermes_async.cli.shell import Shell
from hermes_async.cli.sources import Changes, sources, tell_changes
from hermes_async.cli.supervisor import ChildSpec, Supervisor
from hermes_async.core.hermes import Hermes
from hermes_async.domain.agent import PoolSpec
from hermes_async.domain.errors import ConfigError, EmbeddedServerError, RelayUnavailable
from hermes_async.domain.task import Lane
from hermes_async.domain.urls import masked
from hermes_async.settings import Settings
from hermes_async.worker.command import slots, worker_command

#: Seconds between two looks at the embedded Redis.
LOOK_EVERY: Final = 1.0
#: Seconds that tasks and calls have to end, unless the settings say it; what has not is given back, and that
#: takes so many seconds more at most.
GRACE: Final = 8.0
GIVES_BACK_WITHIN: Final = 8.0
RELAY_STOPS: Final = ((signal.SIGTERM, 9.0),)


@click.command(cls=Command, example="up --workers 2")
@click.option("--port", type=click.IntRange(0, 65_535), help="Of the relay; by default as agents.yaml says.")
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, help="Async workers: one per core at most."
)
@click.option(
    "--trace", is_flag=True, help="Keep spans, and draw what happened in each task once it has ended."
)
@click.pass_obj
def up(shell: Shell, port: int | None, workers: int, trace: bool) -> None:
    """Start Redis (unless one is configured), the workers of all lanes and the relay.

    A process that dies is started again. Ctrl-C stops them all: running tasks have some seconds to end,
    those that do not go on at the next start. A second Ctrl-C kills.
    """
    settings = settings_of(shell, starts=True)
    found = _checked(shell, settings)
    _check_port(settings.agents.relay.host, settings.agents.relay.port if port is None else port)
    first = [_relay(settings, port), callbacks_child(settings)]
    specs = [*first, *worker_children(settings, workers, shell.verbose)]
    console = Console([spec.name for spec in specs], verbose=shell.verbose)
    collector = Collector(settings.traces_dir, console.say) if trace else None
    if collector is not None:
        specs = [collector.traced(spec) for spec in specs]
    with _redis(settings) as embedded:
        told = _facts(settings, embedded, workers, found)
        if collector is not None:
            told.append(("traces", f"in {settings.traces_dir}; others send to {collector.address}"))
        groups = [specs[: len(first)], specs[len(first) :]]
        changes = Changes(sources(settings))
        run(_up, Supervisor(groups, console), console, embedded, told, collector, changes)


def _checked(shell: Shell, settings: Settings) -> list[Entry]:
    """Return the agents, or raise the first fault: nothing starts half-configured."""
    known = registry(settings)
    found = entries(known, known.check, shell.trace)
    for entry in found:
        if entry.problem:
            raise ConfigError(entry.problem)
    return found


def _check_port(host: str, port: int) -> None:
    """Raise RelayUnavailable when the relay could not listen: better said now than by a child that dies."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as exc:
        cure = "stop what does, or choose another with --port"
        raise RelayUnavailable(
            f"the relay cannot listen on {host}:{port} ({os.strerror(exc.errno or 0)}); {cure}"
        ) from None


@contextmanager
def _redis(settings: Settings) -> Iterator[EmbeddedRedis | None]:
    """Hold the embedded Redis, or see that the configured servers answer."""
    if settings.agents.task_queue is not None:
        with_hermes(settings, _ping)
        yield None
        return
    embedded = EmbeddedRedis.join(settings.state_dir / "redis")
    try:
        yield embedded
    finally:
        embedded.leave()


async def _ping(hermes: Hermes) -> None:
    await hermes.store.ping()
    await hermes.journal.queue.ping()


def _env(settings: Settings) -> dict[str, str]:
    config = {"HERMES_CONFIG": str(settings.config.absolute())} if settings.config else {}
    return {"PYTHONUNBUFFERED": "1", "HERMES_GRACE": str(settings.grace or GRACE), **config}


def _stops(settings: Settings) -> tuple[tuple[int, float]]:
    return ((signal.SIGTERM, (settings.grace or GRACE) + GIVES_BACK_WITHIN),)


def _relay(settings: Settings, port: int | None) -> ChildSpec:
    where = () if port is None else ("--port", str(port))
    return ChildSpec(
        "relay",
        (sys.executable, "-m", "hermes_async.cli", "relay", *where),
        is_ready=begins(RELAY_READY),
        env=_env(settings),
        stop_signals=RELAY_STOPS,
        # Asked and not killed: as the last one out it also stops the embedded Redis.
        orphan_signal=signal.SIGTERM,
    )


def callbacks_child(settings: Settings) -> ChildSpec:
    """Return the process that calls functions and webhooks."""
    return ChildSpec(
        CALLBACKS,
        (sys.executable, "-m", "hermes_async.cli", "worker", "--lane", CALLBACKS),
        is_ready=begins(CALLBACKS_READY),
        env=_env(settings),
        stop_signals=_stops(settings),
        orphan_signal=signal.SIGTERM,  # as the relay
    )


def worker_children(settings: Settings, count: int, verbose: bool) -> list[ChildSpec]:
    """Return the workers of both lanes, so many of the async one."""
    pool = settings.agents.async_worker_pool
    lanes = [(f"async-{number}" if count > 1 else "async", Lane.ASYNC) for number in range(1, count + 1)]
    sizes = {lane: slots(lane, pool) for lane in Lane}
    return [
        ChildSpec(
            name,
            worker_command(
                lane,
                concurrency=sizes[lane][0],
                up_to=sizes[lane][1],
                loglevel="DEBUG" if verbose else "INFO",
                hostname=f"{name}-{os.getpid()}@%h",
                namespace=settings.agents.namespace,
            ),
            is_ready=is_worker_ready,
            env=_env(settings),
            stop_signals=_stops(settings),
        )
        for name, lane in [*lanes, ("process", Lane.PROCESS)]
    ]


def _facts(
    settings: Settings, embedded: EmbeddedRedis | None, workers: int, found: list[Entry]
) -> list[tuple[str, str]]:
    pool = settings.agents.async_worker_pool
    own = f"{embedded.server}, private, in {settings.state_dir / 'redis'}" if embedded else ""
    return [
        ("redis", own) if embedded else ("broker", masked(settings.agents.task_queue or "")),
        ("async", f"{workers} worker{'s' * (workers > 1)} of {_range(Lane.ASYNC, pool)} coroutines"),
        ("process", f"1 worker of {_range(Lane.PROCESS, pool)} processes"),
        ("agents", ", ".join(f"{e.name} ({e.lane})" for e in found if e.lane) or "none yet"),
    ]


def _range(lane: Lane, pool: PoolSpec) -> str:
    return " to ".join(dict.fromkeys(map(str, slots(lane, pool))))


async def _up(
    supervisor: Supervisor,
    console: Console,
    embedded: EmbeddedRedis | None,
    facts: list[tuple[str, str]],
    collector: Collector | None,
    changes: Changes,
) -> None:
    async with anyio.create_task_group() as group:
        with _signals(supervisor, console):
            if collector is not None:
                await group.start(collector.run)
            group.start_soon(_announce, supervisor, console, facts)
            group.start_soon(tell_changes, changes, console.say)
            if embedded is not None:
                group.start_soon(_watch_redis, embedded, supervisor, console)
            await supervisor.run()
        group.cancel_scope.cancel()
    console.say("stopped")


async def _announce(supervisor: Supervisor, console: Console, facts: list[tuple[str, str]]) -> None:
    started = anyio.current_time()
    console.say("starting ...")
    await supervisor.ready()
    address = console.ready_line("relay").removeprefix(RELAY_READY)
    calls = console.ready_line(CALLBACKS).removeprefix(CALLBACKS_READY)
    for name, value in [*facts, (CALLBACKS, f"1 worker, {calls}"), ("relay", address)]:
        console.say(f"  {name:<9} {value}")
    console.say(f"ready after {anyio.current_time() - started:.1f} s; Ctrl-C stops everything")
    if ("agents", "none yet") in facts:
        console.say(f"\nNo agents yet. Begin with these two files, then start again:\n\n{FIRST_FILE}")


async def _watch_redis(embedded: EmbeddedRedis, supervisor: Supervisor, console: Console) -> None:
    while True:
        await anyio.sleep(LOOK_EVERY)
        before = embedded.url
        try:
            if await anyio.to_thread.run_sync(embedded.ensure):
                console.notice("redis", "had died; started again on the same data")
        except EmbeddedServerError as error:
            console.notice("redis", str(error))
        if embedded.url != before:  # its port was taken: everybody must look again
            supervisor.bounce()


@contextmanager
def _signals(supervisor: Supervisor, console: Console) -> Iterator[None]:
    """Stop at the first signal, kill at the second."""
    loop = asyncio.get_running_loop()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
        signals.append(signal.SIGHUP)
    asked = iter((supervisor.stop,))

    def obey() -> None:
        act = next(asked, supervisor.kill)
        console.say("\nkilling" if act == supervisor.kill else "\nstopping; Ctrl-C again kills ...")
        act()

    for number in signals:
        loop.add_signal_handler(number, obey)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
